// A server's status (comm/PROTOCOL.md) as text for people.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace lorikeet::launcher {

// Arrays of objects become tables, objects become "key value" lines, under their names as headings. It knows nothing of
// single keys, so a server that reports more is shown whole.
std::string status_table(const nlohmann::ordered_json& status);

}  // namespace lorikeet::launcher
