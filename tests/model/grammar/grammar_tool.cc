// Tells of grammars which texts they take: the C++ side of tests/schema_suite.py.
//
//   grammar_tool MODEL_DIR VOCAB_SIZE
//
// Lines of {"kind" (model::GrammarKind), "text", "instances": [texts]} to lines of {"error", "accepted": [bools], "ms",
// "bytes"}; the error is empty where the grammar could be compiled, which took `ms` of a core and fills
// `bytes`.
#include <ctime>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/sampling/token_constraint.h"
#include "model/grammar/grammar.h"

namespace {

using lorikeet::model::CompiledGrammar;
using lorikeet::model::Tokenizer;
using Json = nlohmann::json;

bool takes(const CompiledGrammar& grammar, const Tokenizer& tokenizer, const std::string& text, int32_t vocab_size) {
  const int32_t end = vocab_size - 1;
  const auto state = grammar.begin({end});
  std::vector<uint32_t> allowed(static_cast<size_t>(lorikeet::kernels::mask_words(vocab_size)));
  const auto allows = [&](int32_t id) {
    state->fill(allowed);
    return (allowed[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0;
  };
  for (const int32_t id : tokenizer.encode(text, false)) {
    if (!allows(id) || !state->accept(id)) return false;
  }
  return allows(end);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int32_t vocab_size = std::stoi(argv[2]);
  const auto tokenizer = Tokenizer::load(argv[1]);
  if (!tokenizer) {
    std::cerr << tokenizer.error().message << "\n";
    return 1;
  }
  const auto compiler = lorikeet::model::make_grammar_compiler(**tokenizer, vocab_size, 0);
  if (!compiler) {
    std::cerr << compiler.error().message << "\n";
    return 1;
  }
  for (std::string line; std::getline(std::cin, line);) {
    const Json json = Json::parse(line);
    const std::clock_t start = std::clock();
    const auto kind = static_cast<lorikeet::model::GrammarKind>(json["kind"].get<int>());
    const auto grammar = (*compiler)->compile({kind, json["text"].get<std::string>()});
    const double ms = 1000.0 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    Json answer = {{"error", grammar ? "" : grammar.error().message}, {"accepted", Json::array()}, {"ms", ms}};
    if (grammar) {
      answer["bytes"] = (*grammar)->bytes();
      for (const Json& text : json["instances"]) {
        answer["accepted"].push_back(takes(**grammar, **tokenizer, text.get<std::string>(), vocab_size));
      }
    }
    std::cout << answer.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
  }
  return 0;
}
