// Turns a request's generated ids into text: detokenizes, and ends at a stop string.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/tokenizer/detokenizer.h"
#include "model/tokenizer/stop_strings.h"
#include "model/tokenizer/tokenizer.h"

namespace lorikeet::actors {

// Threads: one at a time.
class TextStream {
 public:
  struct Options {
    std::vector<std::string> stop;
    std::vector<int32_t> stop_token_ids;  // that end the request, eos included where it counts
    bool include_stop_str_in_output = false;
    bool skip_special_tokens = true;
    // [stop strings] Each with its special tokens between marks (marked()), if it spells some that skip_special_tokens
    // leaves out of the text; else empty.
    std::vector<std::string> marked_stop = {};
    int32_t min_tokens = 0;  // no stop string ends within so many
  };

  // A special token as marked_stop has it. The marks are bytes that no UTF-8 holds.
  static std::string marked(std::string_view special_token);

  // tokenizer: null for a checkpoint without one, whose answers are token ids alone.
  TextStream(std::shared_ptr<const model::Tokenizer> tokenizer, Options options);

  // The text that this id completes; may be empty. A stop id gives no text of its own unless stop strings are included
  // in the output.
  std::string push(int32_t id);

  // Ends the stream; returns the text that was held back.
  std::string flush();

  // The stop string that was found, as the client gave it; ids after it do not belong to the answer.
  std::optional<std::string> matched() const;

 private:
  std::string unmarked(std::string text);

  std::shared_ptr<const model::Tokenizer> tokenizer_;
  std::vector<int32_t> stop_token_ids_;  // ascending
  bool include_stop_;
  int32_t held_tokens_;   // that are still to come before a stop string may end
  bool marks_;            // special tokens pass the matcher, between marks
  bool in_mark_ = false;  // the text given out last ended between marks
  std::vector<std::string> stops_;
  model::Detokenizer detokenizer_;
  model::StopStringMatcher matcher_;
};

}  // namespace lorikeet::actors
