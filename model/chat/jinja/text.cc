#include "model/chat/jinja/text.h"

#include <utf8proc.h>

#include <algorithm>
#include <utility>

namespace lorikeet::model::jinja {

Text Text::own(std::string bytes) {
  Text text;
  text.bytes_ = std::move(bytes);
  return text;
}

Text Text::foreign(std::string bytes) {
  Text text = own(std::move(bytes));
  text.add_foreign(0, text.size());
  return text;
}

Text Text::as(const Text& like, std::string bytes) {
  return like.has_foreign() ? foreign(std::move(bytes)) : own(std::move(bytes));
}

Text Text::markup() const {
  Text text = *this;
  text.markup_ = true;
  return text;
}

Text Text::escaped() const {
  if (markup_) return *this;
  Text result;
  for (size_t at = 0; at < size();) {
    const size_t next = std::min(view().find_first_of("&<>'\"", at), size());
    result.append(slice(at, next));
    if (next == size()) break;
    const char c = bytes_[next];
    result.append_own(c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '"' ? "&#34;" : "&#39;");
    at = next + 1;
  }
  return result.markup();
}

Text Text::plain() const {
  Text text = *this;
  text.markup_ = false;
  return text;
}

void Text::add_foreign(size_t begin, size_t end) {
  if (begin == end) return;
  if (!foreign_.empty() && foreign_.back().end == begin) {
    foreign_.back().end = end;
  } else {
    foreign_.push_back({begin, end});
  }
}

void Text::append(const Text& other) {
  const size_t offset = size();
  bytes_ += other.bytes_;
  for (const Span& span : other.foreign_) add_foreign(offset + span.begin, offset + span.end);
}

Text Text::slice(size_t begin, size_t end) const {
  end = std::min(end, size());
  begin = std::min(begin, end);
  Text text = own(bytes_.substr(begin, end - begin));
  text.markup_ = markup_;
  auto span = std::partition_point(foreign_.begin(), foreign_.end(), [&](const Span& s) { return s.end <= begin; });
  for (; span != foreign_.end() && span->begin < end; ++span) {
    text.add_foreign(std::max(span->begin, begin) - begin, std::min(span->end, end) - begin);
  }
  return text;
}

bool is_ascii(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

size_t count_code_points(std::string_view bytes) {
  return static_cast<size_t>(
      std::count_if(bytes.begin(), bytes.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

size_t code_point_length(std::string_view bytes, size_t at) {
  const auto lead = static_cast<unsigned char>(bytes[at]);
  const size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  return std::min(length, bytes.size() - at);
}

size_t byte_of_code_point(std::string_view bytes, size_t index) {
  size_t at = 0;
  while (index > 0 && at < bytes.size()) {
    at += code_point_length(bytes, at);
    --index;
  }
  return at;
}

char32_t code_point_at(std::string_view bytes, size_t at) {
  utf8proc_int32_t code_point = 0;
  utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(bytes.data()) + at,
                   static_cast<utf8proc_ssize_t>(bytes.size() - at), &code_point);
  return code_point < 0 ? U'\uFFFD' : static_cast<char32_t>(code_point);
}

void append_code_point(char32_t code_point, std::string* out) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), bytes);
  out->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
}

bool is_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F);
  if (c == 0x85) return true;
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
}

Span stripped(std::string_view bytes, const std::string_view* chars, bool left, bool right) {
  const auto goes = [&](size_t at) {
    if (!chars) return is_space(code_point_at(bytes, at));
    return chars->find(bytes.substr(at, code_point_length(bytes, at))) != std::string_view::npos;
  };
  Span span{0, bytes.size()};
  while (left && span.begin < span.end && goes(span.begin)) span.begin += code_point_length(bytes, span.begin);
  while (right && span.begin < span.end) {
    size_t last = span.end - 1;
    while (last > span.begin && (static_cast<unsigned char>(bytes[last]) & 0xC0) == 0x80) --last;
    if (!goes(last)) break;
    span.end = last;
  }
  return span;
}

}  // namespace lorikeet::model::jinja
