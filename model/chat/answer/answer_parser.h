// From the text of a chat's answer, as it is generated, to reasoning, calls of tools, and what is said.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "model/chat/answer/answer_piece.h"
#include "model/chat/answer/reasoning_splitter.h"
#include "model/chat/answer/tool_call_reader.h"

namespace lorikeet::model {

// The forms in which models write calls, under vLLM's names: hermes, qwen3_coder.
enum class ToolCallForm : uint8_t { none, hermes, qwen3_coder };

// Threads: one at a time. The pieces do not depend on how the text was cut.
class AnswerParser {
 public:
  struct Options {
    ReasoningSplitter::Begin reasoning = ReasoningSplitter::Begin::answer;
    ToolCallForm tool_calls = ToolCallForm::none;
    bool parallel_tool_calls = true;      // false: calls behind the first are dropped
    std::vector<std::string> tools = {};  // JSON objects, as the request has them
  };

  explicit AnswerParser(const Options& options);

  AnswerPiece push(std::string_view text);
  AnswerPiece flush();  // the text has ended

  bool in_reasoning() const { return reasoning_.in_reasoning(); }
  int32_t calls() const { return calls_; }

 private:
  void take(AnswerPiece* piece);
  void take_text(AnswerPiece* piece);
  bool take_call(AnswerPiece* piece);
  void read(std::string_view text, bool closed, bool ended, AnswerPiece* piece);

  ReasoningSplitter reasoning_;
  const ToolCallForm form_;
  const bool parallel_;
  std::shared_ptr<const StringParameters> parameters_;
  std::string rest_;                        // of the answer: not decided yet
  std::unique_ptr<ToolCallReader> reader_;  // inside of a call
  std::string call_text_;                   // of that call, while it may turn out to be none
  int32_t calls_ = 0;
};

}  // namespace lorikeet::model
