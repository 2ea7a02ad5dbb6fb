#include "model/chat/template_fingerprint.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cctype>
#include <utility>
#include <vector>

namespace lorikeet::model {
namespace {

constexpr size_t kMaxSource = 1 << 20;
constexpr std::string_view kSystemHead = "<|im_start|>system\n", kTurnEnd = "<|im_end|>\n";

struct Token {
  enum class Kind { name, string, symbol } kind;  // numbers count as names
  std::string text;
};

struct Item {  // of a template: text or {{ }} (output), or {% %}
  bool output;
  std::vector<Token> tokens;
  bool is_literal() const { return output && tokens.size() == 1 && tokens[0].kind == Token::Kind::string; }
};

bool is_name_character(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_';
}
bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : rest_(source) {
    if (rest_.ends_with('\n')) rest_.remove_suffix(1);  // Jinja's keep_trailing_newline is off
  }

  Result<std::vector<Item>> run() {
    while (!rest_.empty()) {
      const size_t tag = find_tag();
      take_text(tag);
      if (rest_.empty()) break;
      const char type = rest_[1];  // '{', '%' or '#'
      rest_.remove_prefix(2);
      if (rest_.starts_with('-') || rest_.starts_with('+')) rest_.remove_prefix(1);
      if (type == '#') {
        if (!skip_comment()) return fail("a comment is not closed");
        continue;
      }
      std::vector<Token> tokens;
      const std::string_view closer = type == '{' ? "}}" : "%}";
      if (auto ok = take_tokens(closer, &tokens); !ok) return tl::unexpected(ok.error());
      simplify(&tokens);
      push({type == '{', std::move(tokens)});
    }
    return std::move(items_);
  }

 private:
  size_t find_tag() const {
    for (size_t i = 0; i + 1 < rest_.size(); ++i) {
      if (rest_[i] == '{' && (rest_[i + 1] == '{' || rest_[i + 1] == '%' || rest_[i + 1] == '#')) return i;
    }
    return rest_.size();
  }

  // The text before the tag at `end`, less what the tag's sign or lstrip_blocks takes away.
  void take_text(size_t end) {
    std::string text(rest_.substr(0, end));
    rest_.remove_prefix(end);
    const char type = rest_.size() > 1 ? rest_[1] : '\0', sign = rest_.size() > 2 ? rest_[2] : '\0';
    if (sign == '-') {
      while (!text.empty() && is_space(text.back())) text.pop_back();
    } else if ((type == '%' || type == '#') && sign != '+') {
      const size_t line = text.rfind('\n') + 1;  // 0 if there is none
      const bool blank = std::all_of(text.begin() + static_cast<ptrdiff_t>(line), text.end(), is_space);
      if (blank && (line > 0 || at_line_start_)) text.resize(line);
    }
    if (!text.empty()) push({true, {{Token::Kind::string, std::move(text)}}});
  }

  // After a tag: what its sign or trim_blocks takes away of the text that follows.
  void after_tag(bool trim_all, bool is_block) {
    at_line_start_ = false;
    if (trim_all) {
      while (!rest_.empty() && is_space(rest_.front())) {
        at_line_start_ = rest_.front() == '\n';
        rest_.remove_prefix(1);
      }
    } else if (is_block && rest_.starts_with('\n')) {
      rest_.remove_prefix(1);
      at_line_start_ = true;
    }
  }

  bool skip_comment() {
    const size_t end = rest_.find("#}");
    if (end == std::string_view::npos) return false;
    const bool trim_all = end > 0 && rest_[end - 1] == '-';
    rest_.remove_prefix(end + 2);
    after_tag(trim_all, true);
    return true;
  }

  Result<void> take_tokens(std::string_view closer, std::vector<Token>* tokens) {
    while (!rest_.empty()) {
      const char c = rest_.front();
      if (is_space(c)) {
        rest_.remove_prefix(1);
        continue;
      }
      const bool signed_closer = (c == '-' || c == '+') && rest_.substr(1).starts_with(closer);
      if (signed_closer || rest_.starts_with(closer)) {
        rest_.remove_prefix(closer.size() + (signed_closer ? 1 : 0));
        after_tag(signed_closer && c == '-', closer == "%}");
        return {};
      }
      if (c == '\'' || c == '"') {
        if (!take_string(tokens)) return fail("a string is not closed");
      } else if (is_name_character(c)) {
        size_t end = 0;
        while (end < rest_.size() && is_name_character(rest_[end])) ++end;
        tokens->push_back({Token::Kind::name, std::string(rest_.substr(0, end))});
        rest_.remove_prefix(end);
      } else {
        size_t size = 1;
        for (const std::string_view two : {"==", "!=", "<=", ">=", "//", "**"}) {
          if (rest_.starts_with(two)) size = 2;
        }
        tokens->push_back({Token::Kind::symbol, std::string(rest_.substr(0, size))});
        rest_.remove_prefix(size);
      }
    }
    return fail("a tag is not closed");
  }

  bool take_string(std::vector<Token>* tokens) {
    const char quote = rest_.front();
    std::string text;
    for (size_t i = 1; i < rest_.size(); ++i) {
      if (rest_[i] == quote) {
        tokens->push_back({Token::Kind::string, std::move(text)});
        rest_.remove_prefix(i + 1);
        return true;
      }
      if (rest_[i] != '\\' || i + 1 == rest_.size()) {
        text += rest_[i];
        continue;
      }
      switch (const char escaped = rest_[++i]) {
        case 'n':
          text += '\n';
          break;
        case 't':
          text += '\t';
          break;
        case 'r':
          text += '\r';
          break;
        case '\\':
        case '\'':
        case '"':
          text += escaped;
          break;
        default:
          text += '\\';
          text += escaped;
      }
    }
    return false;
  }

  // x['name'] becomes x.name; 'a' + 'b' becomes 'ab'.
  static void simplify(std::vector<Token>* tokens) {
    using Kind = Token::Kind;
    std::vector<Token> simple;
    for (Token& token : *tokens) {
      simple.push_back(std::move(token));
      const size_t n = simple.size();
      if (n >= 4 && simple[n - 1].text == "]" && simple[n - 1].kind == Kind::symbol &&
          simple[n - 2].kind == Kind::string && simple[n - 3].text == "[" && simple[n - 3].kind == Kind::symbol &&
          ends_operand(simple[n - 4]) && is_identifier(simple[n - 2].text)) {
        const std::string name = std::move(simple[n - 2].text);
        simple.resize(n - 3);
        simple.push_back({Kind::symbol, "."});
        simple.push_back({Kind::name, name});
      } else if (n >= 3 && simple[n - 1].kind == Kind::string && simple[n - 2].kind == Kind::symbol &&
                 simple[n - 2].text == "+" && simple[n - 3].kind == Kind::string) {
        const std::string joined = simple[n - 3].text + simple[n - 1].text;
        simple.resize(n - 3);
        simple.push_back({Kind::string, joined});
      }
    }
    *tokens = std::move(simple);
  }

  static bool ends_operand(const Token& token) {
    return token.kind == Token::Kind::name ||
           (token.kind == Token::Kind::symbol && (token.text == "]" || token.text == ")"));
  }

  static bool is_identifier(const std::string& text) {
    return !text.empty() && !std::isdigit(static_cast<unsigned char>(text[0])) &&
           std::all_of(text.begin(), text.end(), is_name_character);
  }

  // Literal text after literal text is one literal.
  void push(Item item) {
    if (!items_.empty() && items_.back().is_literal() && item.is_literal()) {
      items_.back().tokens[0].text += item.tokens[0].text;
    } else {
      items_.push_back(std::move(item));
    }
  }

  std::string_view rest_;
  bool at_line_start_ = true;
  std::vector<Item> items_;
};

// The system turn that some literal spells out whole; empty if none does.
std::string find_default_system(const std::vector<Item>& items) {
  for (const Item& item : items) {
    for (const Token& token : item.tokens) {
      std::string_view text = token.text;
      if (token.kind != Token::Kind::string || !text.starts_with(kSystemHead) || !text.ends_with(kTurnEnd)) continue;
      text.remove_prefix(kSystemHead.size());
      if (text.size() <= kTurnEnd.size()) continue;
      text.remove_suffix(kTurnEnd.size());
      if (text.find("<|im_") == std::string_view::npos) return std::string(text);
    }
  }
  return {};
}

std::string canonical(const std::vector<Item>& items, const std::string& default_system) {
  const std::string system_turn = std::string(kSystemHead) + default_system + std::string(kTurnEnd);
  std::string out;
  for (const Item& item : items) {
    out += item.output ? "output" : "block";
    for (const Token& token : item.tokens) {
      if (token.kind != Token::Kind::string) {
        out += ' ' + token.text;
      } else if (!default_system.empty() && (token.text == default_system || token.text == system_turn)) {
        out += token.text == default_system ? " default-system" : " default-system-turn";
      } else {
        out += fmt::format(" {}\"{}\"", token.text.size(), token.text);
      }
    }
    out += '\n';
  }
  return out;
}

std::string sha256(std::string_view bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha256(), nullptr);
  std::string hexadecimal;
  for (unsigned i = 0; i < size; ++i) hexadecimal += fmt::format("{:02x}", digest[i]);
  return hexadecimal;
}

}  // namespace

Result<TemplateFingerprint> fingerprint_template(std::string_view source) {
  if (source.size() > kMaxSource) return fail("it has {} bytes, more than the {} allowed", source.size(), kMaxSource);
  std::string text;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r' || i + 1 == source.size() || source[i + 1] != '\n') text += source[i];
  }
  auto items = Lexer(text).run();
  if (!items) return tl::unexpected(items.error());
  TemplateFingerprint fingerprint;
  fingerprint.default_system = find_default_system(*items);
  fingerprint.digest = sha256(canonical(*items, fingerprint.default_system));
  return fingerprint;
}

}  // namespace lorikeet::model
