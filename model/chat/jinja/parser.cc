#include "model/chat/jinja/parser.h"

#include <utility>

#include "model/chat/jinja/expression_parser.h"
#include "model/chat/jinja/frame_names.h"
#include "model/chat/jinja/token_stream.h"

namespace lorikeet::model::jinja {
namespace {

using Words = std::initializer_list<std::string_view>;

class Parser {
 public:
  explicit Parser(std::string_view source) : stream_(tokenize(source)) {}

  Syntax run() {
    Syntax syntax;
    syntax.body = block({});
    syntax.names = stream_.take_names();
    settle_names(syntax);
    return syntax;
  }

 private:
  static std::unique_ptr<Statement> make(StatementKind kind, int line) {
    auto node = std::make_unique<Statement>();
    node->kind = kind;
    node->line = line;
    return node;
  }

  // Up to a tag with one of these words, which is then the current token; with none of them up to the end.
  Block block(Words ends) {
    const TokenStream::Level level(stream_);
    Block body;
    while (!stream_.at_end()) {
      const Token token = stream_.next();
      if (token.kind == Token::Kind::data) {
        body.push_back(make(StatementKind::data, token.line));
        body.back()->text = Text::own(token.text);
      } else if (token.kind == Token::Kind::variable_begin) {
        body.push_back(make(StatementKind::print, token.line));
        body.back()->expressions.push_back(parse_tuple(stream_));
        stream_.expect(Token::Kind::variable_end, "}}");
      } else {
        if (stream_.is_one_of(ends)) return body;
        body.push_back(statement());
        stream_.expect(Token::Kind::block_end, "%}");
      }
    }
    if (ends.size() > 0) stream_.unexpected(*(ends.end() - 1));
    return body;
  }

  // From the end of a tag to a tag with one of these words.
  Block body(Words ends) {
    stream_.skip_symbol(":");
    stream_.expect(Token::Kind::block_end, "%}");
    return block(ends);
  }

  // The same, with the word taken.
  Block whole_body(std::string_view end) {
    Block result = body({end});
    stream_.expect_word(end);
    return result;
  }

  std::unique_ptr<Statement> statement() {
    const Token word = stream_.expect(Token::Kind::name, "the name of a statement");
    const std::string& name = word.text;
    if (name == "if") return if_else(word.line);
    if (name == "for") return for_loop(word.line);
    if (name == "set") return set(word.line);
    if (name == "macro") return macro(word.line);
    if (name == "call") return call_block(word.line);
    if (name == "filter") return filter_block(word.line);
    if (name == "with") return with(word.line);
    if (name == "print") return print(word.line);
    if (name == "generation") {
      auto node = make(StatementKind::generation, word.line);
      const int loops = std::exchange(loops_, 0);
      node->blocks.push_back(whole_body("endgeneration"));
      loops_ = loops;
      return node;
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) raise("line {}: {} outside of a loop", word.line, name);
      return make(name == "break" ? StatementKind::break_loop : StatementKind::continue_loop, word.line);
    }
    raise("line {}: the statement \"{}\" is not served", word.line, name.substr(0, 80));
  }

  std::unique_ptr<Statement> if_else(int line) {
    auto node = make(StatementKind::if_else, line);
    while (true) {
      node->expressions.push_back(parse_tuple(stream_, false));
      node->blocks.push_back(body({"elif", "else", "endif"}));
      const Token word = stream_.next();
      if (word.text == "elif") continue;
      if (word.text == "else") node->blocks.push_back(whole_body("endif"));
      return node;
    }
  }

  std::unique_ptr<Statement> for_loop(int line) {
    auto node = make(StatementKind::for_loop, line);
    node->target = target(false);
    stream_.expect_word("in");
    node->expressions.push_back(parse_tuple(stream_, false));
    node->expressions.push_back(stream_.skip_word("if") ? parse_expression(stream_) : nullptr);
    if (stream_.is_word("recursive")) raise("line {}: recursive loops are not served", line);
    ++loops_;
    node->blocks.push_back(body({"endfor", "else"}));
    --loops_;
    if (stream_.next().text == "else") node->blocks.push_back(whole_body("endfor"));
    return node;
  }

  std::unique_ptr<Statement> set(int line) {
    auto node = make(StatementKind::set, line);
    node->target = target(true);
    if (stream_.skip_symbol("=")) {
      node->expressions.push_back(parse_tuple(stream_));
      return node;
    }
    node->kind = StatementKind::set_block;
    node->expressions.push_back(parse_filters(stream_, nullptr, false));
    node->blocks.push_back(whole_body("endset"));
    return node;
  }

  std::unique_ptr<Statement> macro(int line) {
    auto node = make(StatementKind::macro, line);
    node->text = Text::own(stream_.current().text);
    node->name = name();
    parameters(&node->parameters);
    node->blocks.push_back(function_body("endmacro"));
    return node;
  }

  std::unique_ptr<Statement> call_block(int line) {
    auto node = make(StatementKind::call_block, line);
    if (stream_.is_symbol("(")) parameters(&node->parameters);
    node->expressions.push_back(parse_expression(stream_));
    if (node->expressions[0]->kind != ExpressionKind::call) raise("line {}: call needs the call of a macro", line);
    node->blocks.push_back(function_body("endcall"));
    return node;
  }

  std::unique_ptr<Statement> filter_block(int line) {
    auto node = make(StatementKind::filter_block, line);
    node->expressions.push_back(parse_filters(stream_, nullptr, true));
    node->blocks.push_back(whole_body("endfilter"));
    return node;
  }

  std::unique_ptr<Statement> with(int line) {
    auto node = make(StatementKind::with, line);
    while (!stream_.is(Token::Kind::block_end)) {
      if (!node->targets.empty()) stream_.expect_symbol(",");
      node->targets.push_back(target(false));
      stream_.expect_symbol("=");
      node->expressions.push_back(parse_expression(stream_));
    }
    node->blocks.push_back(whole_body("endwith"));
    return node;
  }

  std::unique_ptr<Statement> print(int line) {
    auto node = make(StatementKind::print, line);
    while (!stream_.is(Token::Kind::block_end)) {
      if (!node->expressions.empty()) stream_.expect_symbol(",");
      node->expressions.push_back(parse_expression(stream_));
    }
    return node;
  }

  // The body of what is a function of its own: a loop around it is none inside.
  Block function_body(std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    Block result = whole_body(end);
    loops_ = loops;
    return result;
  }

  NameId name() {
    const Token token = stream_.expect(Token::Kind::name, "a name");
    for (const std::string_view reserved : {"true", "false", "none", "True", "False", "None"}) {
      if (token.text == reserved) raise("line {}: {} cannot be assigned to", token.line, reserved);
    }
    return stream_.number_of(token.text);
  }

  Target single_target(bool with_attribute) {
    const TokenStream::Level level(stream_);
    Target result;
    if (stream_.skip_symbol("(")) {
      result = target(false);
      stream_.expect_symbol(")");
      return result;
    }
    result.name = name();
    if (with_attribute && stream_.skip_symbol(".")) {
      result.attribute = stream_.expect(Token::Kind::name, "an attribute").text;
    }
    return result;
  }

  Target target(bool with_attribute) {
    Target first = single_target(with_attribute);
    if (!stream_.is_symbol(",")) return first;
    Target tuple;
    tuple.is_tuple = true;
    tuple.several.push_back(std::move(first));
    while (stream_.skip_symbol(",")) {
      if (stream_.is_symbol(")") || stream_.is(Token::Kind::block_end)) break;
      tuple.several.push_back(single_target(with_attribute));
    }
    return tuple;
  }

  void parameters(Parameters* result) {
    stream_.expect_symbol("(");
    while (!stream_.is_symbol(")")) {
      if (!result->names.empty()) stream_.expect_symbol(",");
      result->words.push_back(stream_.current().text);
      result->names.push_back(name());
      if (stream_.skip_symbol("=")) {
        result->defaults.push_back(parse_expression(stream_));
      } else if (!result->defaults.empty()) {
        raise("line {}: a parameter without default behind one with", stream_.line());
      }
    }
    stream_.expect_symbol(")");
  }

  TokenStream stream_;
  int loops_ = 0;  // that a break would end
};

}  // namespace

Syntax parse(std::string_view source) {
  return Parser(source).run();
}

}  // namespace lorikeet::model::jinja
