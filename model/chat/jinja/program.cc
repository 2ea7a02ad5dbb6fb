#include "model/chat/jinja/program.h"

#include <algorithm>

#include "model/chat/jinja/parser.h"
#include "model/tokenizer/utf8.h"

namespace lorikeet::model::jinja {

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

}  // namespace lorikeet::model::jinja
