// Tells a model's reasoning, <think> ... </think> in front of its answer, from the answer.
#pragma once

#include <string>
#include <string_view>

namespace lorikeet::model {

// Threads: one at a time.
class ReasoningSplitter {
 public:
  enum class Begin : uint8_t {
    answer,    // there is none, or the prompt has closed it
    may_open,  // reasoning only where the text begins with <think>
    open,      // the prompt has opened it, or the model always reasons first; a <think> of its own counts for nothing
  };

  explicit ReasoningSplitter(Begin begin);

  // Takes the next text. Newlines beside the tags belong to neither side.
  void push(std::string_view text, std::string* reasoning, std::string* answer);
  void flush(std::string* reasoning, std::string* answer);  // the text has ended

  bool in_reasoning() const { return state_ >= State::open && state_ <= State::reasoning; }

 private:
  enum class State : uint8_t { may_open, open, reasoning_begin, reasoning, answer_begin, answer };

  State state_;
  std::string held_;  // not decided yet
};

// What the prompt's last words make of it: whether they have opened a thought, closed one, or neither.
enum class OpenedThought : uint8_t { none, open, closed };
OpenedThought opened_thought(std::string_view last_words);

}  // namespace lorikeet::model
