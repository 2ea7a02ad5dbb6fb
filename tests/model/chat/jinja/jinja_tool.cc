// Renders lines of {"template", "variables"} to lines of {"text"}, null where the template is refused: the C++ side of
// tests/jinja_differential.py.
#include <iostream>
#include <string>

#include "model/chat/jinja/json_text.h"
#include "model/chat/jinja/program.h"

int main() {
  namespace jinja = lorikeet::model::jinja;
  using Json = nlohmann::ordered_json;
  for (std::string line; std::getline(std::cin, line);) {
    const Json json = Json::parse(line);
    jinja::Evaluator::Variables variables;
    for (const auto& [name, value] : json["variables"].items()) variables.emplace(name, jinja::from_json(value));
    const auto program = jinja::Program::compile(json["template"].get<std::string>());
    Json answer = {{"text", nullptr}, {"error", program ? "" : program.error().message}};
    if (program) {
      const auto text = program->render(variables, 0, {.max_steps = 200'000, .max_output = 1 << 20});
      if (text) {
        answer["text"] = text->bytes();
      } else {
        answer["error"] = text.error().message;
      }
    }
    std::cout << answer.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
  }
  return 0;
}
