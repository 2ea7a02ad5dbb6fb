#include "actors/head/text_stream.h"

#include <algorithm>
#include <utility>

namespace lorikeet::actors {
namespace {

constexpr char kMark = '\xFF', kUnmark = '\xFE';

// Each stop string, then each that has one with marks: the first that is complete ends the stream.
std::vector<std::string> patterns_of(const TextStream::Options& options) {
  std::vector<std::string> patterns = options.stop;
  patterns.insert(patterns.end(), options.marked_stop.begin(), options.marked_stop.end());
  return patterns;
}

bool has_marks(const TextStream::Options& options) {
  return std::any_of(options.marked_stop.begin(), options.marked_stop.end(), [](const auto& s) { return !s.empty(); });
}

std::vector<int32_t> ascending(std::vector<int32_t> ids) {
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace

std::string TextStream::marked(std::string_view special_token) {
  return kMark + std::string(special_token) + kUnmark;
}

TextStream::TextStream(std::shared_ptr<const model::Tokenizer> tokenizer, Options options)
    : tokenizer_(tokenizer),
      stop_token_ids_(ascending(std::move(options.stop_token_ids))),
      include_stop_(options.include_stop_str_in_output),
      held_tokens_(options.min_tokens),
      marks_(tokenizer != nullptr && options.skip_special_tokens && has_marks(options)),
      stops_(options.stop),
      detokenizer_(std::move(tokenizer), options.skip_special_tokens),
      matcher_(patterns_of(options), options.include_stop_str_in_output) {}

std::string TextStream::push(int32_t id) {
  const bool may_match = held_tokens_ <= 0;
  if (!may_match) --held_tokens_;
  const bool stops = std::binary_search(stop_token_ids_.begin(), stop_token_ids_.end(), id);
  if (stops && !include_stop_) return {};
  if (!tokenizer_) return {};
  if (marks_ && tokenizer_->is_special(id)) return unmarked(matcher_.push(marked(tokenizer_->bytes_of(id)), may_match));
  return unmarked(matcher_.push(detokenizer_.push(id), may_match));
}

std::string TextStream::flush() {
  if (matcher_.matched()) return {};
  std::string text = unmarked(matcher_.push(detokenizer_.flush(), held_tokens_ <= 0));
  return text + unmarked(matcher_.flush());
}

std::optional<std::string> TextStream::matched() const {
  if (!matcher_.matched()) return std::nullopt;
  return stops_[*matcher_.matched() % stops_.size()];
}

std::string TextStream::unmarked(std::string text) {
  if (!marks_) return text;
  std::string rest;
  for (const char c : text) {
    if (c == kMark) in_mark_ = true;
    if (!in_mark_) rest += c;
    if (c == kUnmark) in_mark_ = false;
  }
  return rest;
}

}  // namespace lorikeet::actors
