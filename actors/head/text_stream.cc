#include "actors/head/text_stream.h"

#include <algorithm>
#include <utility>

namespace lorikeet::actors {

TextStream::TextStream(std::shared_ptr<const model::Tokenizer> tokenizer, Options options)
    : stop_token_ids_(std::move(options.stop_token_ids)),
      include_stop_(options.include_stop_str_in_output),
      has_text_(tokenizer != nullptr),
      detokenizer_(std::move(tokenizer), options.skip_special_tokens),
      matcher_(std::move(options.stop), options.include_stop_str_in_output) {}

std::string TextStream::push(int32_t id) {
  const bool stops = std::find(stop_token_ids_.begin(), stop_token_ids_.end(), id) != stop_token_ids_.end();
  if (stops && !include_stop_) return {};
  if (!has_text_) return {};
  return matcher_.push(detokenizer_.push(id));
}

std::string TextStream::flush() {
  if (matcher_.matched()) return {};
  std::string text = matcher_.push(detokenizer_.flush());
  text += matcher_.flush();
  return text;
}

std::optional<std::string> TextStream::matched() const {
  if (!matcher_.matched()) return std::nullopt;
  return matcher_.matched_string();
}

}  // namespace lorikeet::actors
