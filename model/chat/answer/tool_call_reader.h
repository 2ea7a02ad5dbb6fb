// Reads one call of a tool as the model writes it, between <tool_call> and </tool_call>.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "model/chat/answer/answer_piece.h"

namespace lorikeet::model {

// Threads: one at a time.
class ToolCallReader {
 public:
  virtual ~ToolCallReader() = default;

  // What is known of the call so far is added to `piece` (its index is left 0); nothing before its name.
  virtual void push(std::string_view text, ToolCallPiece* piece) = 0;
  virtual void end(ToolCallPiece* piece) = 0;

  bool has_name() const { return has_name_; }

 protected:
  bool has_name_ = false;
};

// {"name": ..., "arguments": {...}}, as Hermes and Qwen up to 3 write calls. Arguments are handed on as they stand.
std::unique_ptr<ToolCallReader> make_hermes_reader();

// By function and parameter, whether its schema allows strings.
using StringParameters = std::map<std::string, std::map<std::string, bool>, std::less<>>;
StringParameters string_parameters(const std::vector<std::string>& tools);

// <function=NAME><parameter=KEY>VALUE</parameter>...</function>, as Qwen3-Coder writes them. Arguments come parameter by
// parameter. A value is a string where its schema allows one or says nothing, else the JSON (or Python) that it spells.
std::unique_ptr<ToolCallReader> make_qwen3_coder_reader(std::shared_ptr<const StringParameters> parameters);

}  // namespace lorikeet::model
