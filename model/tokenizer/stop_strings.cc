#include "model/tokenizer/stop_strings.h"

#include <algorithm>
#include <utility>

namespace lorikeet::model {
namespace {

// How much of `stop` is matched after one more byte, when `matched` bytes (< its size) were before.
size_t advance(const std::string& stop, const std::vector<uint32_t>& fallback, size_t matched, char byte) {
  while (matched > 0 && stop[matched] != byte) matched = fallback[matched];
  return stop[matched] == byte ? matched + 1 : 0;
}

}  // namespace

StopStringMatcher::StopStringMatcher(std::vector<std::string> stops, bool include_stop_str_in_output)
    : include_(include_stop_str_in_output) {
  stops_.reserve(stops.size());
  for (std::string& text : stops) {
    std::vector<uint32_t> fallback(text.size() + 1, 0);
    for (size_t i = 1; i < text.size(); ++i) {
      fallback[i + 1] = static_cast<uint32_t>(advance(text, fallback, fallback[i], text[i]));
    }
    stops_.push_back({std::move(text), std::move(fallback), 0});
  }
}

std::string StopStringMatcher::push(std::string_view text, bool may_match) {
  if (matched_) return {};
  for (const char byte : text) {
    held_ += byte;
    for (size_t i = 0; i < stops_.size(); ++i) {
      Stop& stop = stops_[i];
      if (stop.text.empty()) continue;
      stop.matched = advance(stop.text, stop.fallback, stop.matched, byte);
      if (stop.matched < stop.text.size()) continue;
      if (may_match && !matched_) matched_ = i;
      if (!may_match) stop.matched = stop.fallback[stop.matched];
    }
    if (!matched_) continue;
    if (!include_) held_.resize(held_.size() - stops_[*matched_].text.size());
    return std::exchange(held_, {});
  }
  size_t keep = 0;
  for (const Stop& stop : stops_) keep = std::max(keep, stop.matched);
  std::string ready = held_.substr(0, held_.size() - keep);
  held_.erase(0, ready.size());
  return ready;
}

std::string StopStringMatcher::flush() {
  return std::exchange(held_, {});
}

}  // namespace lorikeet::model
