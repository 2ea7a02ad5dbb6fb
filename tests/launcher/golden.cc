#include "tests/launcher/golden.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <sstream>

namespace lorikeet::tests {
namespace {

using Json = nlohmann::json;

std::string prompt_difference(const Json& reference, const Json& result, double tolerance) {
  const Json& want = reference["prompt_logprobs"];
  if (reference["prompt_ids"].size() < 2) return "";
  const Json& got = result["prompt_logprobs"];
  if (!got.is_array() || got.size() != want.size()) return "prompt_logprobs has the wrong length";
  for (size_t i = 1; i < want.size(); ++i) {
    if (!got[i].is_number()) return fmt::format("prompt log-probability {} is not a number", i);
    const double distance = std::abs(got[i].get<double>() - want[i].get<double>());
    if (!(distance <= tolerance)) return fmt::format("prompt log-probability {} is off by {:.5f}", i, distance);
  }
  return "";
}

// One generated token. `tied` is set where the token is another one of a near-tie: what follows is not comparable.
std::string step_difference(const Json& top, int token, const Json& logprobs, int got_token, double tolerance,
                            bool* tied) {
  std::map<int, double> got;
  for (const Json& pair : logprobs) got[pair[0].get<int>()] = pair[1].is_number() ? pair[1].get<double>() : NAN;
  for (const Json& pair : top) {
    const int id = pair[0].get<int>();
    const double want = pair[1].get<double>();
    const auto it = got.find(id);
    // The last of the best five may be tied with a sixth, which may stand in its place.
    if (it == got.end() && want > top.back()[1].get<double>() + 2 * tolerance)
      return fmt::format("token {} is missing", id);
    if (it != got.end() && !(std::abs(it->second - want) <= tolerance)) {
      return fmt::format("log-probability of token {} is {} instead of {}", id, it->second, want);
    }
  }
  if (got_token == token) return "";
  *tied = std::any_of(top.begin(), top.end(), [&](const Json& pair) {
    return pair[0].get<int>() == got_token && top[0][1].get<double>() - pair[1].get<double>() < 2 * tolerance;
  });
  return *tied ? "" : fmt::format("token {} instead of {}", got_token, token);
}

std::string case_difference(const Json& reference, const Json& result, double tolerance) {
  if (result.is_null()) return "no result";
  if (!result["error"].is_null()) return result["error"].dump();
  const Json& tokens = reference["token_ids"];
  if (result["token_ids"].size() != tokens.size() || result["logprobs"].size() != tokens.size())
    return "wrong number of tokens";
  if (auto why = prompt_difference(reference, result, tolerance); !why.empty()) return why;
  bool tied = false;
  for (size_t i = 0; i < tokens.size() && !tied; ++i) {
    const auto why = step_difference(reference["top5"][i], tokens[i].get<int>(), result["logprobs"][i],
                                     result["token_ids"][i].get<int>(), tolerance, &tied);
    if (!why.empty()) return fmt::format("step {}: {}", i, why);
  }
  return "";
}

}  // namespace

std::string golden_requests(const Json& golden) {
  std::string lines;
  for (size_t i = 0; i < golden["cases"].size(); ++i) {
    const Json& c = golden["cases"][i];
    lines += Json{{"id", std::to_string(i)},
                  {"prompt_token_ids", c["prompt_ids"]},
                  {"adapter", c["adapter"]},
                  {"max_tokens", c["token_ids"].size()},
                  {"temperature", 0},
                  {"top_p", 1},
                  {"top_k", 0},
                  {"repetition_penalty", 1.0},
                  {"logprobs", 5},
                  {"prompt_logprobs", true},
                  {"ignore_eos", true}}
                 .dump() +
             "\n";
  }
  return lines;
}

std::string golden_differences(const Json& golden, const std::string& results, double tolerance) {
  std::map<std::string, Json> by_id;
  std::istringstream lines(results);
  for (std::string line; std::getline(lines, line);) {
    const Json result = Json::parse(line);
    by_id[result["id"].get<std::string>()] = result;
  }
  std::string differences;
  for (size_t i = 0; i < golden["cases"].size(); ++i) {
    const std::string why = case_difference(golden["cases"][i], by_id[std::to_string(i)], tolerance);
    if (!why.empty())
      differences += fmt::format("case {} (adapter {}): {}\n", i, golden["cases"][i]["adapter"].dump(), why);
  }
  return differences;
}

}  // namespace lorikeet::tests
