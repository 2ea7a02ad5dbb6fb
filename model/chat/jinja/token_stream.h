// Reads tokens one after the other, for the parser.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "model/chat/jinja/lexer.h"
#include "model/chat/jinja/syntax.h"

namespace lorikeet::model::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[at_]; }
  const Token& look(size_t ahead = 1) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  Token next() {
    Token token = tokens_[at_];
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool at_end() const { return current().kind == Token::Kind::end; }
  bool is(Token::Kind kind) const { return current().kind == kind; }
  bool is_symbol(std::string_view text) const { return is(Token::Kind::symbol) && current().text == text; }
  bool is_word(std::string_view text) const { return is(Token::Kind::name) && current().text == text; }
  bool is_one_of(std::initializer_list<std::string_view> words) const {
    return std::any_of(words.begin(), words.end(), [&](std::string_view word) { return is_word(word); });
  }
  bool skip_symbol(std::string_view text) {
    if (!is_symbol(text)) return false;
    next();
    return true;
  }
  bool skip_word(std::string_view text) {
    if (!is_word(text)) return false;
    next();
    return true;
  }
  Token expect(Token::Kind kind, std::string_view what) {
    if (!is(kind)) unexpected(what);
    return next();
  }
  void expect_symbol(std::string_view text) {
    if (!skip_symbol(text)) unexpected(text);
  }
  void expect_word(std::string_view text) {
    if (!skip_word(text)) unexpected(text);
  }
  [[noreturn]] void unexpected(std::string_view wanted) const {
    const Token& token = current();
    const std::string_view found = token.kind == Token::Kind::end ? "the end"
                                   : token.kind == Token::Kind::block_end || token.kind == Token::Kind::variable_end
                                       ? "the tag's end"
                                       : std::string_view(token.text);
    raise("line {}: '{}' where {} is expected", token.line, found.substr(0, 80), wanted);
  }
  int line() const { return current().line; }

  NameId number_of(const std::string& name) {
    const auto [found, is_new] = numbers_.emplace(name, static_cast<NameId>(names_.size()));
    if (is_new) names_.push_back(name);
    return found->second;
  }
  std::vector<std::string> take_names() { return std::move(names_); }

  // Counts a level of nesting while it lives.
  class Level {
   public:
    explicit Level(TokenStream& stream) : stream_(stream) {
      if (++stream_.depth_ > kMaxDepth) raise("line {}: nested deeper than {} levels", stream_.line(), kMaxDepth);
    }
    ~Level() { --stream_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    TokenStream& stream_;
  };

 private:
  static constexpr int kMaxDepth = 100;

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  std::unordered_map<std::string, NameId> numbers_;
  std::vector<std::string> names_;
};

}  // namespace lorikeet::model::jinja
