// Turns a stream of ids into a stream of text that never ends inside a character.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "model/tokenizer/tokenizer.h"

namespace lorikeet::model {

// Holds back at most 3 bytes of an unfinished character; bytes that can never become one are given as U+FFFD, exactly
// as Tokenizer::decode would give them for the whole stream.
class Detokenizer {
 public:
  Detokenizer(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special);

  std::string push(int32_t id);  // the text that this id completes; may be empty
  std::string flush();           // what was held back, as U+FFFD; ends the stream

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_;
  std::string held_;
};

}  // namespace lorikeet::model
