// Any bytes as a chat template: it is refused or rendered within its limits.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "model/chat/jinja/json_text.h"
#include "model/chat/jinja/program.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace jinja = lorikeet::model::jinja;
  const auto program = jinja::Program::compile({reinterpret_cast<const char*>(data), size});
  if (!program) return 0;
  static const jinja::Evaluator::Variables variables = {
      {"messages", jinja::from_json({{{"role", "user"}, {"content", " a b\n"}}, {{"role", "tool"}, {"content", ""}}})},
      {"n", int64_t{3}},
  };
  (void)program->render(variables, 0, {.max_steps = 20'000, .max_output = 1 << 16});
  return 0;
}
