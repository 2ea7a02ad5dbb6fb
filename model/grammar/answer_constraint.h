// What the next token of a sequence may be: reasoning that is closed when its budget is spent, and behind it an answer
// that follows a grammar. A function of the tokens generated so far, so that a preemption or another life of the ranks
// changes nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "model/grammar/grammar.h"

namespace lorikeet::model {

// Threads: one at a time.
class AnswerConstraint {
 public:
  enum class Thinking : uint8_t {
    none,  // the answer begins at once
    may,   // with the opening tag first, else not
    open,  // until the closing tag
  };
  struct Options {
    Thinking thinking = Thinking::none;
    std::vector<int32_t> opening_tag;  // ids of <think>; more than one: it is not looked for
    std::vector<int32_t> closing_tag;  // ids of </think>
    int32_t thinking_budget = -1;      // tokens, opening tag apart; then the closing tag is all that may come. -1: none
    std::unique_ptr<GrammarState> grammar;  // of what comes behind; may be null
    int32_t vocab_size = 0;
  };

  explicit AnswerConstraint(Options options);

  void accept(int32_t token);  // the next one generated

  // Of the draw that follows; empty: all may be drawn. Lives until the next call.
  std::span<const uint32_t> allowed();

  bool has_grammar() const { return options_.grammar != nullptr; }

  // Whether allowed() for the draw behind the next token needs to know that token.
  bool needs_next_token() const;

 private:
  void begin_answer(int32_t token);
  void allow_only(int32_t token);

  Options options_;
  Thinking state_;
  int32_t thought_ = 0;         // tokens
  size_t closed_ = 0;           // tokens of the closing tag that stand at the end
  bool off_ = false;            // a token that the grammar does not allow has come: it constrains no more
  std::vector<uint32_t> mask_;  // [mask_words(vocab_size)]
};

}  // namespace lorikeet::model
