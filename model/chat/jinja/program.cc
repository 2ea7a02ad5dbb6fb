#include "model/chat/jinja/program.h"

#include <algorithm>

#include "model/chat/jinja/parser.h"
#include "model/tokenizer/utf8.h"

namespace lorikeet::model::jinja {
namespace {

bool is_member(const Expression& expression, std::string_view name) {
  switch (expression.kind) {
    case ExpressionKind::name:
    case ExpressionKind::attribute:
      return expression.text == name;
    case ExpressionKind::item: {
      const Text* key = expression.children[1]->constant.text();
      return expression.children[1]->kind == ExpressionKind::constant && key && key->view() == name;
    }
    case ExpressionKind::filter:
      return expression.children[0] && is_member(*expression.children[0], name);
    default:
      return false;
  }
}

bool any_loop_over(const Block& block, std::string_view name) {
  return std::any_of(block.begin(), block.end(), [name](const auto& statement) {
    if (statement->kind == StatementKind::for_loop && is_member(*statement->expressions[0], name)) return true;
    return std::any_of(statement->blocks.begin(), statement->blocks.end(),
                       [name](const Block& inner) { return any_loop_over(inner, name); });
  });
}

}  // namespace

Result<Program> Program::compile(std::string_view source) {
  if (source.size() > kMaxSource) return fail("it has {} bytes, more than the {} allowed", source.size(), kMaxSource);
  if (!is_valid_utf8(source)) return fail("it is not UTF-8");
  try {
    Program program;
    program.syntax_ = std::make_shared<const Syntax>(parse(source));
    return program;
  } catch (const std::exception& error) {  // a TemplateError, or memory that is not to be had
    return fail("{}", error.what());
  }
}

Result<Text> Program::render(const Evaluator::Variables& variables, std::time_t now, Limits limits) const {
  try {
    return Evaluator(*syntax_, variables, now, limits).run();
  } catch (const std::exception& error) {
    return fail("{}", error.what());
  }
}

bool Program::mentions(std::string_view name) const {
  return std::find(syntax_->names.begin(), syntax_->names.end(), name) != syntax_->names.end();
}

bool Program::loops_over(std::string_view name) const {
  return any_loop_over(syntax_->body, name);
}

}  // namespace lorikeet::model::jinja
