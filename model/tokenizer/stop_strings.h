// Ends a stream of text at the first stop string, across the borders of the pieces that the text comes in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lorikeet::model {

// A stop string is found where it first becomes complete: of several, the one that ends first, and of those that end at
// the same byte the one listed first. So what is found does not depend on how the text was cut into pieces. Held back
// is only what may yet turn out to be part of a stop string: less than the longest of them, and whole characters if
// text and stop strings are valid UTF-8.
//
// Threads: one stream, one thread at a time.
class StopStringMatcher {
 public:
  // Empty stop strings are never found.
  StopStringMatcher(std::vector<std::string> stops, bool include_stop_str_in_output);

  // The text that may be given out now. After a stop string was found: nothing, whatever comes. Of text that may not
  // match, the stop strings that end in it are passed over.
  std::string push(std::string_view text, bool may_match = true);
  // At the end of the stream: what was held back; empty if a stop string was found.
  std::string flush();

  // The index in `stops` of the string that was found.
  std::optional<size_t> matched() const { return matched_; }
  const std::string& matched_string() const { return stops_[*matched_].text; }  // only if matched()

 private:
  struct Stop {
    std::string text;
    std::vector<uint32_t>
        fallback;        // Knuth-Morris-Pratt: by length of a matched prefix, the next shorter one that fits
    size_t matched = 0;  // how many of its bytes the stream ends with
  };

  std::vector<Stop> stops_;
  bool include_;
  std::string held_;
  std::optional<size_t> matched_;
};

}  // namespace lorikeet::model
