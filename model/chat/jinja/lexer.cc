#include "model/chat/jinja/lexer.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "model/chat/jinja/string_literal.h"
#include "model/chat/jinja/text.h"
#include "model/chat/jinja/value.h"

namespace lorikeet::model::jinja {
namespace {

constexpr size_t kNone = std::string_view::npos;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_name(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}

std::string with_plain_newlines(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      text += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      text += source[i];
    }
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(with_plain_newlines(source)), text_(source_) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) {
      const size_t tag = find_tag();
      if (tag == kNone) {
        add(Token::Kind::data, std::string(text_.substr(at_)));
        break;
      }
      take_data(tag);
      take_tag();
    }
    add(Token::Kind::end, "");
    return std::move(tokens_);
  }

 private:
  size_t find_tag() const {
    for (size_t i = text_.find('{', at_); i != kNone; i = text_.find('{', i + 1)) {
      if (i + 1 < text_.size() && (text_[i + 1] == '{' || text_[i + 1] == '%' || text_[i + 1] == '#')) return i;
    }
    return kNone;
  }

  void add(Token::Kind kind, std::string text) {
    if (kind == Token::Kind::data && text.empty()) return;
    tokens_.push_back({kind, std::move(text), line_});
  }

  void move_to(size_t to) {
    line_ += static_cast<int>(
        std::count(text_.begin() + static_cast<ptrdiff_t>(at_), text_.begin() + static_cast<ptrdiff_t>(to), '\n'));
    if (to > at_) line_starting_ = text_[to - 1] == '\n';
    at_ = to;
  }

  // The text up to the tag at `tag`, less what the tag's sign or lstrip_blocks takes.
  void take_data(size_t tag) {
    std::string_view data = text_.substr(at_, tag - at_);
    const char type = text_[tag + 1], sign = tag + 2 < text_.size() ? text_[tag + 2] : '\0';
    if (sign == '-') {
      data = data.substr(0, stripped(data, nullptr, false, true).end);
    } else if (sign != '+' && type != '{') {
      const size_t line = data.rfind('\n') + 1;  // 0 where there is no newline
      const std::string_view before = data.substr(line);
      if ((line > 0 || line_starting_) && stripped(before, nullptr, true, false).begin == before.size()) {
        data = data.substr(0, line);
      }
    }
    add(Token::Kind::data, std::string(data));
    move_to(tag);
  }

  // The tag that begins here, to its end and what that takes of the text behind.
  void take_tag() {
    const char type = text_[at_ + 1];
    if (type == '%' && take_raw()) return;
    size_t inside = at_ + 2;
    if (inside < text_.size() && (text_[inside] == '-' || text_[inside] == '+')) ++inside;
    if (type == '#') {
      const size_t end = text_.find("#}", inside);
      if (end == kNone) raise("line {}: a comment is not closed", line_);
      return close(end, '#', end > inside ? text_[end - 1] : '\0');
    }
    move_to(inside);
    add(type == '{' ? Token::Kind::variable_begin : Token::Kind::block_begin, "");
    take_inside(type == '{' ? '}' : '%');
  }

  // end: of "}}", "%}" or "#}"; sign: the character in front.
  void close(size_t end, char type, char sign) {
    size_t next = end + 2;
    if (sign == '-') {
      next += stripped(text_.substr(next), nullptr, true, false).begin;
    } else if (sign != '+' && type != '}' && next < text_.size() && text_[next] == '\n') {
      ++next;
    }
    move_to(next);
  }

  // {% raw %} ... {% endraw %}; false where the tag is another.
  bool take_raw() {
    size_t end = 0;
    char sign = '\0';
    if (!is_word_tag(at_, "raw", false, &end, &sign)) return false;
    const size_t begin = sign == '-' ? end + stripped(text_.substr(end), nullptr, true, false).begin : end;
    move_to(begin);
    for (size_t tag = text_.find("{%", at_); tag != kNone; tag = text_.find("{%", tag + 2)) {
      if (!is_word_tag(tag, "endraw", true, &end, &sign)) continue;
      take_data(tag);
      close(end - 2, '%', sign);
      return true;
    }
    raise("line {}: raw is not closed", line_);
  }

  // Whether the block at `tag` is this word alone; *end: behind it.
  bool is_word_tag(size_t tag, std::string_view word, bool plus, size_t* end, char* sign) const {
    size_t i = tag + 2;
    if (i < text_.size() && (text_[i] == '-' || text_[i] == '+')) ++i;
    const auto skip = [&] { i += stripped(text_.substr(i), nullptr, true, false).begin; };
    skip();
    if (!text_.substr(i).starts_with(word)) return false;
    i += word.size();
    skip();
    *sign = '\0';
    if (i < text_.size() && (text_[i] == '-' || (plus && text_[i] == '+'))) *sign = text_[i++];
    if (!text_.substr(i).starts_with("%}")) return false;
    *end = i + 2;
    return true;
  }

  void take_inside(char closer) {
    std::string open;  // the brackets that are open, as what closes them
    while (true) {
      move_to(at_ + stripped(text_.substr(at_), nullptr, true, false).begin);
      if (at_ == text_.size()) raise("line {}: a tag is not closed", line_);
      const std::string_view rest = text_.substr(at_);
      if (open.empty() && ends(rest, closer)) return;
      take_token(rest, &open);
    }
  }

  bool ends(std::string_view rest, char closer) {
    const char end[] = {closer, '}'};
    const bool block = closer == '%';
    const char sign = rest[0] == '-' || (block && rest[0] == '+') ? rest[0] : '\0';
    if (!rest.substr(sign ? 1 : 0).starts_with(std::string_view(end, 2))) return false;
    add(block ? Token::Kind::block_end : Token::Kind::variable_end, "");
    close(at_ + (sign ? 1 : 0), closer, sign);
    return true;
  }

  void take_token(std::string_view rest, std::string* open) {
    const char c = rest[0];
    if (is_digit(c)) return take_number(rest);
    if (is_name(c)) {
      size_t length = 1;
      while (length < rest.size() && is_name(rest[length])) ++length;
      add(Token::Kind::name, std::string(rest.substr(0, length)));
      return move_to(at_ + length);
    }
    if (c == '\'' || c == '"') {
      size_t end = 1;
      while (end < rest.size() && rest[end] != c) end += rest[end] == '\\' ? 2 : 1;
      if (end >= rest.size()) raise("line {}: a string is not closed", line_);
      add(Token::Kind::string, unescape(rest.substr(1, end - 1), line_));
      return move_to(at_ + end + 1);
    }
    take_symbol(rest, open);
  }

  void take_symbol(std::string_view rest, std::string* open) {
    constexpr std::string_view kDouble[] = {"//", "**", "==", "!=", ">=", "<="};
    size_t length = 1;
    for (const std::string_view symbol : kDouble) {
      if (rest.starts_with(symbol)) length = 2;
    }
    const char c = rest[0];
    constexpr std::string_view kSingle = "+-/*%~[](){}><=.:|,;";
    if (length == 1 && kSingle.find(c) == kNone) raise("line {}: unexpected character '{}'", line_, c);
    if (length == 1 && (c == '(' || c == '[' || c == '{')) *open += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (length == 1 && (c == ')' || c == ']' || c == '}')) {
      if (open->empty()) raise("line {}: unexpected '{}': the tag is not closed as it was opened", line_, c);
      if (open->back() != c) raise("line {}: '{}' where '{}' is expected", line_, c, open->back());
      open->pop_back();
    }
    add(Token::Kind::symbol, std::string(rest.substr(0, length)));
    move_to(at_ + length);
  }

  // Digits with single underscores between them, from `from`; the length.
  static size_t digits(std::string_view text, size_t from) {
    size_t i = from;
    while (i < text.size() && (is_digit(text[i]) || (text[i] == '_' && i > from && i + 1 < text.size() &&
                                                     is_digit(text[i + 1]) && text[i - 1] != '_'))) {
      ++i;
    }
    return i - from;
  }

  void take_number(std::string_view rest) {
    const size_t whole = digits(rest, 0);
    size_t length = whole;
    bool real = false;
    if (length + 1 < rest.size() && rest[length] == '.' && is_digit(rest[length + 1])) {
      length += 1 + digits(rest, length + 1);
      real = true;
    }
    if (length < rest.size() && (rest[length] == 'e' || rest[length] == 'E')) {
      size_t exponent = length + 1;
      if (exponent < rest.size() && (rest[exponent] == '+' || rest[exponent] == '-')) ++exponent;
      if (const size_t more = digits(rest, exponent); more > 0) {
        length = exponent + more;
        real = true;
      }
    }
    // Not after a dot: x.0.1 has two integers.
    if (real && !tokens_.empty() && at_ > 0 && text_[at_ - 1] == '.') {
      real = false;
      length = whole;
    }
    if (!real && rest[0] == '0') {
      if (rest.size() > 1 && std::isalpha(static_cast<unsigned char>(rest[1]))) {
        return take_based(rest);
      }
      length = 1;  // other digits behind a zero are another number, as Jinja reads them
      while (length < whole && (rest[length] == '0' || rest[length] == '_')) ++length;
    }
    std::string text(rest.substr(0, length));
    std::erase(text, '_');
    add(real ? Token::Kind::real : Token::Kind::integer, std::move(text));
    move_to(at_ + length);
  }

  // 0b1, 0o7, 0xF.
  void take_based(std::string_view rest) {
    const char letter = static_cast<char>(std::tolower(static_cast<unsigned char>(rest[1])));
    const int base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    uint64_t value = 0;
    size_t length = 2;
    for (; base > 0 && length < rest.size(); ++length) {
      const char c = static_cast<char>(std::tolower(static_cast<unsigned char>(rest[length])));
      if (c == '_') continue;
      const int digit = is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
      if (digit >= base) break;
      value = value * static_cast<uint64_t>(base) + static_cast<uint64_t>(digit);
      if (value > INT64_MAX) raise("line {}: an integer beyond 64 bits", line_);
    }
    if (length == 2) {  // a zero, and a name behind it
      add(Token::Kind::integer, "0");
      return move_to(at_ + 1);
    }
    add(Token::Kind::integer, std::to_string(value));
    move_to(at_ + length);
  }

  const std::string source_;
  const std::string_view text_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // what was read last ended with a newline
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace lorikeet::model::jinja
