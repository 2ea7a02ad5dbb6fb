// Cuts a template into tokens as Jinja2's lexer does with transformers' settings: trim_blocks and lstrip_blocks on, one
// newline at the end dropped, \r\n and \r read as \n. Source: jinja2/lexer.py.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lorikeet::model::jinja {

struct Token {
  enum class Kind : uint8_t {
    data,            // text: what the template prints as it stands
    variable_begin,  // {{
    variable_end,
    block_begin,  // {%
    block_end,
    name,
    string,   // its value, escapes resolved
    integer,  // its digits, in decimal
    real,
    symbol,  // an operator or bracket
    end
  } kind = Kind::end;
  std::string text = {};
  int line = 1;
};

// Throws TemplateError with the line.
std::vector<Token> tokenize(std::string_view source);

}  // namespace lorikeet::model::jinja
