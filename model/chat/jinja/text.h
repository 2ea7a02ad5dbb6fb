// Strings of a template, which know whose bytes they hold: the template's own, or values that a client sent. Python
// counts them in code points; bytes are valid UTF-8.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace lorikeet::model::jinja {

struct Span {
  size_t begin = 0, end = 0;  // bytes
};

class Text {
 public:
  Text() = default;
  static Text own(std::string bytes);
  static Text foreign(std::string bytes);
  // As a whole foreign where `like` has anything foreign: for changes that do not keep bytes in their places.
  static Text as(const Text& like, std::string bytes);

  const std::string& bytes() const { return bytes_; }
  std::string_view view() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  const std::vector<Span>& foreign_spans() const { return foreign_; }  // ascending, apart from each other
  bool has_foreign() const { return !foreign_.empty(); }

  // HTML that a filter has made or declared safe: Python escapes what is added to it.
  bool is_markup() const { return markup_; }
  Text markup() const;
  Text escaped() const;  // the same as HTML, unless it is markup
  Text plain() const;    // as Python's iteration over such text gives its characters

  void append(const Text& other);
  void append_own(std::string_view bytes) { bytes_ += bytes; }
  Text slice(size_t begin, size_t end) const;  // bytes [begin, end)

 private:
  void add_foreign(size_t begin, size_t end);

  std::string bytes_;
  std::vector<Span> foreign_;
  bool markup_ = false;
};

bool is_ascii(std::string_view bytes);
size_t count_code_points(std::string_view bytes);
size_t byte_of_code_point(std::string_view bytes, size_t index);  // bytes.size() past the end
size_t code_point_length(std::string_view bytes, size_t at);      // bytes of the code point that begins there
char32_t code_point_at(std::string_view bytes, size_t at);
void append_code_point(char32_t code_point, std::string* out);
bool is_space(char32_t code_point);  // as str.isspace()

// The bytes [begin, end) that remain when code points of `chars` (white space where null) are taken off.
Span stripped(std::string_view bytes, const std::string_view* chars, bool left, bool right);

}  // namespace lorikeet::model::jinja
