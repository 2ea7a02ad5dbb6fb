#include "model/tokenizer/detokenizer.h"

#include <utility>

#include "model/tokenizer/utf8.h"

namespace lorikeet::model {

Detokenizer::Detokenizer(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}

std::string Detokenizer::push(int32_t id) {
  if (skip_special_ && tokenizer_->is_special(id)) return {};
  held_ += tokenizer_->bytes_of(id);
  const size_t complete = held_.size() - unfinished_utf8_suffix(held_);
  std::string text;
  append_repaired_utf8(std::string_view(held_).substr(0, complete), &text);
  held_.erase(0, complete);
  return text;
}

std::string Detokenizer::flush() {
  std::string text;
  append_repaired_utf8(held_, &text);
  held_.clear();
  return text;
}

}  // namespace lorikeet::model
