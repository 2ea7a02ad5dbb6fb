#include "model/grammar/pattern_check.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <vector>

namespace lorikeet::model {
namespace {

constexpr size_t kMaxBrackets = 100;     // open at once
constexpr uint64_t kMaxWeight = 20'000;  // pieces that all repetitions together spell

// The larger count of {3}, {3,} or {3,9} that begins at `at`; `end` is behind it. None: it is something else.
std::optional<uint64_t> repeats(std::string_view pattern, size_t at, size_t* end) {
  const size_t close = pattern.find('}', at);
  if (close == std::string_view::npos || close == at + 1) return std::nullopt;
  uint64_t most = 1, number = 0;
  const char* next = pattern.data() + at + 1;
  const char* const last = pattern.data() + close;
  while (next < last) {
    const auto parsed = std::from_chars(next, last, number);
    if (parsed.ec == std::errc::result_out_of_range) number = UINT32_MAX;
    if (parsed.ec == std::errc::invalid_argument) return std::nullopt;
    most = std::max(most, std::min<uint64_t>(number, UINT32_MAX));
    next = parsed.ptr;
    if (next < last && *next++ != ',') return std::nullopt;
  }
  *end = close + 1;
  return most;
}

}  // namespace

Result<void> check_pattern(std::string_view pattern) {
  std::vector<uint64_t> open = {0};  // weights of what has been opened: the whole, groups
  uint64_t piece = 0;                // of the last piece, which a repetition is of
  const auto add = [&](uint64_t weight) {
    piece = weight;
    open.back() += weight;
  };
  for (size_t at = 0; at < pattern.size(); ++at) {
    const char c = pattern[at];
    size_t end = 0;
    if (c == '\\') {
      ++at;
      add(1);
    } else if (c == '(' || c == '[') {
      if (open.size() > kMaxBrackets) return fail("more than {} brackets are open at once", kMaxBrackets);
      open.push_back(0);
    } else if ((c == ')' || c == ']') && open.size() > 1) {
      const uint64_t inner = c == ']' ? 1 : std::max<uint64_t>(open.back(), 1);
      open.pop_back();
      add(inner);
    } else if (const auto count = c == '{' ? repeats(pattern, at, &end) : std::nullopt) {
      open.back() += piece * *count - piece;
      at = end - 1;
    } else {
      add(1);
    }
    if (open.back() > kMaxWeight + pattern.size()) {
      return fail("its repetitions spell more than {} pieces", kMaxWeight);
    }
  }
  return {};
}

}  // namespace lorikeet::model
