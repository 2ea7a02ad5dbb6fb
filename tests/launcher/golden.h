// Reference outputs (transformers + peft in float32) as requests, and results held against them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace lorikeet::tests {

// The requests of golden["cases"], one per line, ids "0", "1", ...: greedy, with log-probabilities of prompt and
// answer.
std::string golden_requests(const nlohmann::json& golden);

// Why the results do not agree with the reference, a sentence per case; empty when all do. A result agrees when it has
// the reference's number of tokens, every log-probability is within `tolerance`, and every token is the reference's up
// to the first near-tie (margin below 2 * tolerance), where it must be one of the tied ones.
std::string golden_differences(const nlohmann::json& golden, const std::string& results, double tolerance);

}  // namespace lorikeet::tests
