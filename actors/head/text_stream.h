// From a request's generated ids to its text: detokenizes, ends at a stop string, and keeps what the final answer says.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
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
  };

  // tokenizer: null for a checkpoint without one, whose answers are token ids alone.
  TextStream(std::shared_ptr<const model::Tokenizer> tokenizer, Options options);

  // The text that this id completes; may be empty. A stop id gives no text of its own unless stop strings are included
  // in the output.
  std::string push(int32_t id);

  // Ends the stream: what was held back.
  std::string flush();

  // The stop string that was found; ids after it do not belong to the answer.
  std::optional<std::string> matched() const;

 private:
  std::vector<int32_t> stop_token_ids_;
  bool include_stop_;
  bool has_text_;
  model::Detokenizer detokenizer_;
  model::StopStringMatcher matcher_;
};

}  // namespace lorikeet::actors
