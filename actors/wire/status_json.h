// The form of the server's status: one JSON object, put together from the actors' parts. Keys: comm/PROTOCOL.md.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace lorikeet::actors {

using Json = nlohmann::ordered_json;

// Names and paths come from the command line and need not be UTF-8; such bytes become U+FFFD.
inline std::string to_text(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace lorikeet::actors
