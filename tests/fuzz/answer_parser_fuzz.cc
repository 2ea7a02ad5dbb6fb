// What a model writes, read as reasoning, calls of tools and text: however it is cut, the same comes out, and nothing that
// was not written. The first byte picks the reader, the second how the text is cut.
#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "model/chat/answer/answer_parser.h"
#include "tests/fuzz/fuzz_input.h"

namespace {

using namespace lorikeet::model;
using lorikeet::fuzz::require;

struct Call {
  std::string name, arguments;
  bool operator==(const Call&) const = default;
};

struct Answer {
  std::string text, reasoning;
  std::vector<Call> calls;
  bool operator==(const Answer&) const = default;
};

void add(const AnswerPiece& piece, Answer& answer) {
  answer.text += piece.text;
  answer.reasoning += piece.reasoning;
  for (const ToolCallPiece& call : piece.tool_calls) {
    const auto index = static_cast<size_t>(call.index);
    require(index <= answer.calls.size());
    require(call.name.has_value() == (index == answer.calls.size()));
    if (call.name) answer.calls.push_back({*call.name, ""});
    answer.calls[index].arguments += call.arguments;
  }
}

Answer read(const AnswerParser::Options& options, std::string_view text, size_t step) {
  AnswerParser parser(options);
  Answer answer;
  for (; !text.empty(); text.remove_prefix(std::min(step, text.size()))) add(parser.push(text.substr(0, step)), answer);
  add(parser.flush(), answer);
  require(parser.calls() == static_cast<int32_t>(answer.calls.size()));
  return answer;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data + 2), size - 2);
  AnswerParser::Options options;
  options.reasoning = static_cast<ReasoningSplitter::Begin>(data[0] % 3);
  options.tool_calls = static_cast<ToolCallForm>(data[0] / 3 % 3);
  options.parallel_tool_calls = data[0] / 9 % 2 == 0;
  options.tools = {R"({"function": {"name": "f", "parameters": {"properties": {"s": {"type": "string"}, "n": {},
                      "l": {"type": ["array", "null"]}, "e": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}}}})"};
  const Answer whole = read(options, text, size);
  require(read(options, text, data[1] % 32 + 1) == whole);
  require(whole.text.size() + whole.reasoning.size() <= text.size());
  require(options.parallel_tool_calls || whole.calls.size() <= 1);
  if (options.tool_calls == ToolCallForm::qwen3_coder) {
    for (const Call& call : whole.calls) require(nlohmann::json::accept(call.arguments));
  }
  return 0;
}
