// Letter cases and classes of characters, by Unicode.
#pragma once

#include <string_view>

#include "model/chat/jinja/text.h"

namespace lorikeet::model::jinja {

// name: upper, lower, casefold, capitalize, title or swapcase, as Python's methods; words: as Jinja's filter title.
Text in_case(const Text& text, std::string_view name);

// name: isalnum, isalpha, isascii, isdecimal, isdigit, islower, isnumeric, isspace or isupper.
bool is_of_class(std::string_view text, std::string_view name);

}  // namespace lorikeet::model::jinja
