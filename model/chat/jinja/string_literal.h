// The escapes of string literals.
#pragma once

#include <string>
#include <string_view>

namespace lorikeet::model::jinja {

// The value of what stands between the quotes, by Python's unicode-escape. Throws TemplateError.
std::string unescape(std::string_view literal, int line);

}  // namespace lorikeet::model::jinja
