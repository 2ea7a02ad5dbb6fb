#include "model/chat/answer/reasoning_splitter.h"

#include <algorithm>
#include <utility>

#include "model/chat/answer/answer_piece.h"

namespace lorikeet::model {
namespace {

constexpr std::string_view kOpen = "<think>", kClose = "</think>";

}  // namespace

ReasoningSplitter::ReasoningSplitter(Begin begin)
    : state_(begin == Begin::answer     ? State::answer
             : begin == Begin::may_open ? State::may_open
                                        : State::open) {}

void ReasoningSplitter::push(std::string_view text, std::string* reasoning, std::string* answer) {
  if (state_ == State::answer) {
    answer->append(text);
    return;
  }
  held_ += text;
  if (state_ == State::may_open || state_ == State::open) {
    const size_t begin = std::min(held_.find_first_not_of(kWhiteSpace), held_.size());
    const std::string_view rest = std::string_view(held_).substr(begin);
    if (rest.size() < kOpen.size() && kOpen.starts_with(rest)) return;
    const bool opens = rest.starts_with(kOpen);
    if (opens) held_.erase(0, begin + kOpen.size());
    if (!opens && state_ == State::may_open) {
      state_ = State::answer;
      answer->append(std::exchange(held_, {}));
      return;
    }
    state_ = State::reasoning_begin;
  }
  if (state_ == State::reasoning_begin) {
    held_.erase(0, std::min(held_.find_first_not_of('\n'), held_.size()));
    if (held_.empty()) return;
    state_ = State::reasoning;
  }
  if (state_ == State::reasoning) {
    const size_t close = held_.find(kClose);
    size_t end = close != std::string::npos ? close : held_.size() - begun_mark(held_, kClose);
    while (end > 0 && held_[end - 1] == '\n') --end;
    reasoning->append(held_, 0, end);
    if (close == std::string::npos) {
      held_.erase(0, end);
      return;
    }
    held_.erase(0, close + kClose.size());
    state_ = State::answer_begin;
  }
  if (state_ == State::answer_begin) {
    held_.erase(0, std::min(held_.find_first_not_of('\n'), held_.size()));
    if (held_.empty()) return;
    state_ = State::answer;
    answer->append(std::exchange(held_, {}));
  }
}

void ReasoningSplitter::flush(std::string* reasoning, std::string* answer) {
  (state_ == State::may_open ? answer : reasoning)->append(std::exchange(held_, {}));
}

OpenedThought opened_thought(std::string_view last_words) {
  const size_t open = last_words.rfind(kOpen), close = last_words.rfind(kClose);
  if (open != std::string_view::npos && (close == std::string_view::npos || close < open)) return OpenedThought::open;
  return close != std::string_view::npos ? OpenedThought::closed : OpenedThought::none;
}

}  // namespace lorikeet::model
