// What a stretch of a chat's answer turned out to be.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lorikeet::model {

// Around thoughts and calls, and inside of calls.
inline constexpr std::string_view kWhiteSpace = " \t\r\n";

// A piece of a call of a tool. A call's first piece has its name; all `arguments` together are its JSON, as the model
// wrote it.
struct ToolCallPiece {
  int32_t index = 0;  // of the call in the answer
  std::optional<std::string> name = {};
  std::string arguments = {};

  bool operator==(const ToolCallPiece&) const = default;
};

struct AnswerPiece {
  std::string text = {};
  std::string reasoning = {};
  std::vector<ToolCallPiece> tool_calls = {};

  bool empty() const { return text.empty() && reasoning.empty() && tool_calls.empty(); }
};

// How many of the last bytes of text may be the beginning of `mark`, which is not whole in it.
inline size_t begun_mark(std::string_view text, std::string_view mark) {
  for (size_t size = std::min(text.size(), mark.size() - 1); size > 0; --size) {
    if (mark.starts_with(text.substr(text.size() - size))) return size;
  }
  return 0;
}

}  // namespace lorikeet::model
