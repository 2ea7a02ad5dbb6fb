#include "model/chat/jinja/expression_parser.h"

#include <charconv>
#include <cstdlib>
#include <utility>

#include "model/chat/jinja/builtins.h"

namespace lorikeet::model::jinja {
namespace {

using Kind = ExpressionKind;

ExpressionPtr make(Kind kind, int line) {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = line;
  return node;
}

template <class... Children>
ExpressionPtr make(Kind kind, int line, Children... children) {
  auto node = make(kind, line);
  (node->children.push_back(std::move(children)), ...);
  return node;
}

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& stream) : stream_(stream) {}

  ExpressionPtr expression(bool with_conditional) {
    const TokenStream::Level level(stream_);
    auto node = logical_or();
    while (with_conditional && stream_.is_word("if")) {
      const int line = stream_.next().line;
      auto condition = logical_or();
      ExpressionPtr otherwise;
      if (stream_.skip_word("else")) otherwise = expression(true);
      node = make(Kind::conditional, line, std::move(condition), std::move(node), std::move(otherwise));
    }
    return node;
  }

  ExpressionPtr tuple(bool with_conditional, bool in_parentheses) {
    const int line = stream_.line();
    std::vector<ExpressionPtr> items;
    bool is_tuple = false;
    while (true) {
      if (!items.empty()) stream_.expect_symbol(",");
      if (is_end()) break;
      items.push_back(expression(with_conditional));
      if (!stream_.is_symbol(",")) break;
      is_tuple = true;
    }
    if (!is_tuple && !items.empty()) return std::move(items[0]);
    if (!is_tuple && !in_parentheses) stream_.unexpected("an expression");
    auto node = make(Kind::tuple, line);
    node->children = std::move(items);
    return node;
  }

  ExpressionPtr filters(ExpressionPtr input, bool bare) {
    while (bare || stream_.skip_symbol("|")) {
      bare = false;
      auto node = make(Kind::filter, stream_.line());
      node->text = dotted_name("a filter");
      if (!is_filter(node->text)) raise("line {}: there is no filter \"{}\"", node->line, node->text);
      if (stream_.is_symbol("(")) node->arguments = arguments();
      node->children.push_back(std::move(input));
      input = std::move(node);
    }
    return input;
  }

 private:
  bool is_end() const {
    return stream_.is(Token::Kind::variable_end) || stream_.is(Token::Kind::block_end) || stream_.is_symbol(")");
  }

  ExpressionPtr logical_or() {
    auto left = logical_and();
    while (stream_.is_word("or")) {
      const int line = stream_.next().line;
      left = make(Kind::logical_or, line, std::move(left), logical_and());
    }
    return left;
  }

  ExpressionPtr logical_and() {
    auto left = logical_not();
    while (stream_.is_word("and")) {
      const int line = stream_.next().line;
      left = make(Kind::logical_and, line, std::move(left), logical_not());
    }
    return left;
  }

  ExpressionPtr logical_not() {
    if (!stream_.is_word("not")) return comparison();
    const TokenStream::Level level(stream_);
    const int line = stream_.next().line;
    return make(Kind::logical_not, line, logical_not());
  }

  ExpressionPtr comparison() {
    auto first = sum();
    ExpressionPtr node;
    while (true) {
      std::string op;
      for (const std::string_view symbol : {"==", "!=", "<", "<=", ">", ">="}) {
        if (stream_.is_symbol(symbol)) op = symbol;
      }
      if (stream_.is_word("in")) op = "in";
      const Token& ahead = stream_.look();
      if (stream_.is_word("not") && ahead.kind == Token::Kind::name && ahead.text == "in") op = "not in";
      if (op.empty()) return node ? std::move(node) : std::move(first);
      if (!node) node = make(Kind::comparison, stream_.line(), std::move(first));
      stream_.next();
      if (op == "not in") stream_.next();
      node->operators.push_back(std::move(op));
      node->children.push_back(sum());
    }
  }

  ExpressionPtr binary(ExpressionPtr left, ExpressionPtr (ExpressionParser::*operand)()) {
    auto node = make(Kind::binary, stream_.line(), std::move(left));
    node->text = stream_.next().text;
    node->children.push_back((this->*operand)());
    return node;
  }

  ExpressionPtr sum() {
    auto left = concat();
    while (stream_.is_symbol("+") || stream_.is_symbol("-")) {
      left = binary(std::move(left), &ExpressionParser::concat);
    }
    return left;
  }

  ExpressionPtr concat() {
    auto first = product();
    if (!stream_.is_symbol("~")) return first;
    auto node = make(Kind::concat, stream_.line(), std::move(first));
    while (stream_.skip_symbol("~")) node->children.push_back(product());
    return node;
  }

  ExpressionPtr product() {
    auto left = power();
    while (stream_.is_symbol("*") || stream_.is_symbol("/") || stream_.is_symbol("//") || stream_.is_symbol("%")) {
      left = binary(std::move(left), &ExpressionParser::power);
    }
    return left;
  }

  ExpressionPtr power() {
    auto left = filtered_unary();
    while (stream_.is_symbol("**")) left = binary(std::move(left), &ExpressionParser::filtered_unary);
    return left;
  }

  ExpressionPtr filtered_unary() { return unary(true); }

  ExpressionPtr unary(bool with_filters) {
    const TokenStream::Level level(stream_);
    ExpressionPtr node;
    if (stream_.is_symbol("-") || stream_.is_symbol("+")) {
      const Token sign = stream_.next();
      node = make(sign.text == "-" ? Kind::negative : Kind::positive, sign.line, unary(false));
    } else {
      node = primary();
    }
    node = postfix(std::move(node));
    return with_filters ? filters_and_tests(std::move(node)) : std::move(node);
  }

  ExpressionPtr primary() {
    const Token token = stream_.current();
    switch (token.kind) {
      case Token::Kind::name:
        stream_.next();
        return named(token);
      case Token::Kind::string: {
        auto node = make(Kind::constant, token.line);
        std::string text;
        while (stream_.is(Token::Kind::string)) text += stream_.next().text;
        node->constant = Text::own(std::move(text));
        return node;
      }
      case Token::Kind::integer:
      case Token::Kind::real:
        stream_.next();
        return number(token);
      default:
        break;
    }
    if (stream_.skip_symbol("(")) {
      auto node = tuple(true, true);
      stream_.expect_symbol(")");
      return node;
    }
    if (stream_.is_symbol("[")) return list();
    if (stream_.is_symbol("{")) return dict();
    stream_.unexpected("an expression");
  }

  ExpressionPtr named(const Token& token) {
    const std::string& word = token.text;
    auto node = make(Kind::constant, token.line);
    if (word == "true" || word == "True" || word == "false" || word == "False") {
      node->constant = word == "true" || word == "True";
    } else if (word == "none" || word == "None") {
      node->constant = None{};
    } else {
      node->kind = Kind::name;
      node->name = stream_.number_of(word);
      node->text = word;
    }
    return node;
  }

  static ExpressionPtr number(const Token& token) {
    auto node = make(Kind::constant, token.line);
    if (token.kind == Token::Kind::real) {
      node->constant = std::strtod(token.text.c_str(), nullptr);
      return node;
    }
    int64_t value = 0;
    const auto parsed = std::from_chars(token.text.data(), token.text.data() + token.text.size(), value);
    if (parsed.ec != std::errc()) raise("line {}: an integer beyond 64 bits", token.line);
    node->constant = value;
    return node;
  }

  ExpressionPtr list() {
    auto node = make(Kind::list, stream_.next().line);
    while (!stream_.is_symbol("]")) {
      if (!node->children.empty()) stream_.expect_symbol(",");
      if (stream_.is_symbol("]")) break;
      node->children.push_back(expression(true));
    }
    stream_.expect_symbol("]");
    return node;
  }

  ExpressionPtr dict() {
    auto node = make(Kind::dict, stream_.next().line);
    while (!stream_.is_symbol("}")) {
      if (!node->children.empty()) stream_.expect_symbol(",");
      if (stream_.is_symbol("}")) break;
      node->children.push_back(expression(true));
      stream_.expect_symbol(":");
      node->children.push_back(expression(true));
    }
    stream_.expect_symbol("}");
    return node;
  }

  ExpressionPtr postfix(ExpressionPtr node) {
    while (true) {
      if (stream_.is_symbol(".") || stream_.is_symbol("[")) {
        node = subscript(std::move(node));
      } else if (stream_.is_symbol("(")) {
        node = call(std::move(node));
      } else {
        return node;
      }
    }
  }

  ExpressionPtr filters_and_tests(ExpressionPtr node) {
    while (true) {
      if (stream_.is_symbol("|")) {
        node = filters(std::move(node), false);
      } else if (stream_.is_word("is")) {
        node = test(std::move(node));
      } else if (stream_.is_symbol("(")) {
        node = call(std::move(node));
      } else {
        return node;
      }
    }
  }

  ExpressionPtr subscript(ExpressionPtr object) {
    const Token token = stream_.next();
    if (token.text == ".") {
      const Token member = stream_.next();
      if (member.kind == Token::Kind::name) {
        auto node = make(Kind::attribute, token.line, std::move(object));
        node->text = member.text;
        node->names_key = !is_dict_attribute(node->text);
        return node;
      }
      if (member.kind != Token::Kind::integer) raise("line {}: a name or number is expected after '.'", token.line);
      return make(Kind::item, token.line, std::move(object), number(member));
    }
    std::vector<ExpressionPtr> indices;
    while (!stream_.is_symbol("]")) {
      if (!indices.empty()) stream_.expect_symbol(",");
      indices.push_back(index());
    }
    stream_.expect_symbol("]");
    if (indices.size() == 1) return make(Kind::item, token.line, std::move(object), std::move(indices[0]));
    auto several = make(Kind::tuple, token.line);
    several->children = std::move(indices);
    return make(Kind::item, token.line, std::move(object), std::move(several));
  }

  ExpressionPtr index() {
    const int line = stream_.line();
    const auto absent = [&] { return stream_.is_symbol(":") || stream_.is_symbol("]") || stream_.is_symbol(","); };
    ExpressionPtr begin, end, step;
    if (!stream_.is_symbol(":")) begin = expression(true);
    if (!stream_.is_symbol(":")) return begin;
    stream_.next();
    if (!absent()) end = expression(true);
    if (stream_.skip_symbol(":") && !absent()) step = expression(true);
    return make(Kind::slice, line, std::move(begin), std::move(end), std::move(step));
  }

  ExpressionPtr call(ExpressionPtr callee) {
    auto node = make(Kind::call, stream_.line(), std::move(callee));
    node->arguments = arguments();
    return node;
  }

  CallArguments arguments() {
    CallArguments result;
    const int line = stream_.line();
    const auto ensure = [&](bool fine) {
      if (!fine) raise("line {}: invalid arguments of a call", line);
    };
    stream_.expect_symbol("(");
    for (bool first = true; !stream_.is_symbol(")"); first = false) {
      if (!first) stream_.expect_symbol(",");
      if (stream_.is_symbol(")")) break;
      if (stream_.skip_symbol("*")) {
        ensure(!result.more_positional && !result.more_named);
        result.more_positional = expression(true);
      } else if (stream_.skip_symbol("**")) {
        ensure(!result.more_named);
        result.more_named = expression(true);
      } else if (stream_.is(Token::Kind::name) && stream_.look().kind == Token::Kind::symbol &&
                 stream_.look().text == "=") {
        ensure(!result.more_named);
        std::string name = stream_.next().text;
        stream_.next();
        result.named.emplace_back(std::move(name), expression(true));
      } else {
        ensure(!result.more_positional && !result.more_named && result.named.empty());
        result.positional.push_back(expression(true));
      }
    }
    stream_.expect_symbol(")");
    return result;
  }

  std::string dotted_name(std::string_view what) {
    std::string name = stream_.expect(Token::Kind::name, what).text;
    while (stream_.skip_symbol(".")) name += "." + stream_.expect(Token::Kind::name, what).text;
    return name;
  }

  ExpressionPtr test(ExpressionPtr tested) {
    auto node = make(Kind::test, stream_.next().line);
    const bool negated = stream_.skip_word("not");
    node->text = dotted_name("a test");
    if (!is_test(node->text)) raise("line {}: there is no test \"{}\"", node->line, node->text);
    node->children.push_back(std::move(tested));
    const auto kind = stream_.current().kind;
    if (stream_.is_symbol("(")) {
      node->arguments = arguments();
    } else if ((kind == Token::Kind::name || kind == Token::Kind::string || kind == Token::Kind::integer ||
                kind == Token::Kind::real || stream_.is_symbol("[") || stream_.is_symbol("{")) &&
               !stream_.is_one_of({"else", "or", "and"})) {
      if (stream_.is_word("is")) raise("line {}: tests with `is` cannot be chained", stream_.line());
      node->arguments.positional.push_back(postfix(primary()));
    }
    const int line = node->line;
    return negated ? make(Kind::logical_not, line, std::move(node)) : std::move(node);
  }

  TokenStream& stream_;
};

}  // namespace

ExpressionPtr parse_expression(TokenStream& stream, bool with_conditional) {
  return ExpressionParser(stream).expression(with_conditional);
}

ExpressionPtr parse_tuple(TokenStream& stream, bool with_conditional) {
  return ExpressionParser(stream).tuple(with_conditional, false);
}

ExpressionPtr parse_filters(TokenStream& stream, ExpressionPtr input, bool bare) {
  return ExpressionParser(stream).filters(std::move(input), bare);
}

}  // namespace lorikeet::model::jinja
