#include "comm/openai/json_text.h"

#include <nlohmann/json.hpp>

namespace lorikeet::comm {

std::string to_text(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace lorikeet::comm
