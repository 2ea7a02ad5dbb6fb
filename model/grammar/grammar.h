// Compiles grammars for a tokenizer's vocabulary, and follows them token by token.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/base/error.h"
#include "model/grammar/grammar_spec.h"
#include "model/tokenizer/tokenizer.h"

namespace lorikeet::model {

// Where one answer stands in its grammar. Threads: one at a time.
class GrammarState {
 public:
  virtual ~GrammarState() = default;

  // The next token. False, and nothing has changed: the grammar does not allow it.
  virtual bool accept(int32_t token) = 0;

  // Bit t % 32 of word t / 32: whether token t may be next. allowed [mask_words(vocab_size)]. Where the answer may end,
  // the stop tokens are among them; behind one, they alone are.
  virtual void fill(std::span<uint32_t> allowed) = 0;
};

// Threads: const methods from any.
class CompiledGrammar {
 public:
  virtual ~CompiledGrammar() = default;

  // stop_ids: the tokens that end the answer.
  virtual std::unique_ptr<GrammarState> begin(const std::vector<int32_t>& stop_ids) const = 0;
  virtual size_t bytes() const = 0;  // about
};

// Threads: any. Compiling takes milliseconds to seconds; what was compiled is kept, the latest first, within a budget.
class GrammarCompiler {
 public:
  virtual ~GrammarCompiler() = default;

  // Errors: a sentence that says what is wrong with the grammar.
  virtual Result<std::shared_ptr<const CompiledGrammar>> compile(const GrammarSpec& spec) = 0;
};

inline constexpr size_t kGrammarCacheBytes = 256 << 20;

// Whether this build has grammars at all; where not, the next fails with a sentence.
bool has_grammars();

// vocab_size: of the model's logits, which may be more than the tokenizer has. Takes a moment: it sorts the vocabulary.
Result<std::shared_ptr<GrammarCompiler>> make_grammar_compiler(const Tokenizer& tokenizer, int32_t vocab_size,
                                                               size_t cache_bytes = kGrammarCacheBytes);

}  // namespace lorikeet::model
