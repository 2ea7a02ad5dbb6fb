// From a template's source to its tree. Source: jinja2/parser.py, with the loopcontrols extension and transformers'
// generation blocks. What other templates would be needed for (extends, include, import) is refused by name.
#pragma once

#include <string_view>

#include "model/chat/jinja/syntax.h"

namespace lorikeet::model::jinja {

// Throws TemplateError with the line. Nesting is bounded.
Syntax parse(std::string_view source);

}  // namespace lorikeet::model::jinja
