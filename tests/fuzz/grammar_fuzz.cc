// What an answer is to be like, in the languages in which clients say it: refused with a sentence, or a grammar that
// takes the tokens that it allows. The first byte picks the language, the second the tokens.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/head/grammar_request.h"
#include "comm/client/client_messages.h"
#include "kernels/sampling/token_constraint.h"
#include "model/grammar/grammar.h"
#include "tests/fuzz/fuzz_input.h"

namespace {

using namespace lorikeet;
using fuzz::require;
using fuzz::succeeded;

struct Known {
  std::shared_ptr<const model::Tokenizer> tokenizer =
      *model::Tokenizer::load(LORIKEET_SOURCE_DIR "/examples/models/tiny-qwen2-gptq-int4");
  int32_t vocab_size = tokenizer->vocab_size() + 1;  // the last one ends answers
  std::shared_ptr<model::GrammarCompiler> compiler = *model::make_grammar_compiler(*tokenizer, vocab_size, 0);
};

std::optional<model::GrammarSpec> spec_of(uint8_t kind, const std::string& text) {
  if (kind < model::kGrammarKinds) return model::GrammarSpec{static_cast<model::GrammarKind>(kind), text};
  if (kind < model::kGrammarKinds + 2) {
    const auto calls = actors::grammar_of_calls({text, "{}"}, {kind % 2 == 0 ? "hermes" : "qwen3_coder", false});
    return succeeded(calls) ? std::optional(*calls) : std::nullopt;
  }
  comm::GenerateRequest request;
  (kind % 2 == 0 ? request.response_format : request.structured_outputs) = comm::JsonText{text};
  const auto spec = actors::grammar_of(request);
  return succeeded(spec) ? *spec : std::nullopt;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  static const Known known;
  const auto spec = spec_of(data[0] % 9, {reinterpret_cast<const char*>(data + 2), size - 2});
  if (!spec) return 0;
  const auto grammar = known.compiler->compile(*spec);
  if (!succeeded(grammar)) return 0;
  const int32_t end = known.vocab_size - 1;
  const auto state = (*grammar)->begin({end});
  std::vector<uint32_t> allowed(static_cast<size_t>(kernels::mask_words(known.vocab_size)));
  for (uint32_t step = 0, drawn = data[1]; step < 24; ++step) {
    state->fill(allowed);
    std::vector<int32_t> ids;
    for (int32_t id = 0; id < known.vocab_size; ++id) {
      if ((allowed[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0) ids.push_back(id);
    }
    drawn = drawn * 1103515245 + 12345;
    if (ids.empty()) return 0;
    require(state->accept(ids[drawn / 256 % ids.size()]));
  }
  return 0;
}
