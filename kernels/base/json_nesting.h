// How deep JSON is nested, before anybody parses it. Parsers are bounded by their text; what walks through the result is
// not: writing a document, copying or comparing one goes down a level of the call stack with each bracket.
#pragma once

#include <cstddef>
#include <string_view>

namespace lorikeet {

// Whether more than `levels` brackets are open at once anywhere in the text. Of text that is not JSON it says anything.
inline bool nests_deeper(std::string_view json, size_t levels) {
  size_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > levels) return true;
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return false;
}

}  // namespace lorikeet
