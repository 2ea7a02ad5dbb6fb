// JSON as it is sent.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace lorikeet::comm {

// In one line. What is not UTF-8 is replaced, so that an answer is always one that can be read.
std::string to_text(const nlohmann::ordered_json& value);

}  // namespace lorikeet::comm
