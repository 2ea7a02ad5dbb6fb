// JSON and values: what clients send becomes values, and tojson writes values as Python's json.dumps does.
#pragma once

#include <nlohmann/json.hpp>

#include "model/chat/jinja/value.h"

namespace lorikeet::model::jinja {

// The value of a JSON text; strings come out foreign: a client wrote them. Keys keep their order, integers their digits.
// Throws TemplateError on what is not JSON.
Value parse_json(std::string_view text);
// The same of JSON that has been read.
Value from_json(const nlohmann::ordered_json& json);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::string item_separator = ", ", key_separator = ": ";
  std::string indent = {};  // of one level
  bool has_indent = false;
};

// Foreign as a whole where any string in it is. Throws TemplateError on what JSON does not have.
Text to_json(const Value& value, const JsonStyle& style);

}  // namespace lorikeet::model::jinja
