#include "model/grammar/answer_constraint.h"

#include <algorithm>
#include <utility>

#include "kernels/sampling/token_constraint.h"

namespace lorikeet::model {

AnswerConstraint::AnswerConstraint(Options options) : options_(std::move(options)), state_(options_.thinking) {
  if (state_ == Thinking::may && options_.opening_tag.size() != 1) state_ = Thinking::none;
  if (state_ == Thinking::open && options_.closing_tag.empty()) state_ = Thinking::none;
  mask_.resize(static_cast<size_t>(kernels::mask_words(options_.vocab_size)));
}

void AnswerConstraint::accept(int32_t token) {
  if (state_ == Thinking::none) return begin_answer(token);
  if (state_ == Thinking::may) {
    state_ = token == options_.opening_tag[0] && !options_.closing_tag.empty() ? Thinking::open : Thinking::none;
    if (state_ == Thinking::none) begin_answer(token);
    return;
  }
  ++thought_;
  const std::vector<int32_t>& tag = options_.closing_tag;
  // A tag of several ids is looked for from its first one again where it breaks off.
  closed_ = token == tag[closed_] ? closed_ + 1 : token == tag[0] ? 1 : 0;
  if (closed_ == tag.size()) state_ = Thinking::none;
}

void AnswerConstraint::begin_answer(int32_t token) {
  if (options_.grammar && !off_) off_ = !options_.grammar->accept(token);
}

std::span<const uint32_t> AnswerConstraint::allowed() {
  if (state_ == Thinking::open) {
    if (options_.thinking_budget < 0 || thought_ < options_.thinking_budget) return {};
    allow_only(options_.closing_tag[closed_]);
    return mask_;
  }
  if (!options_.grammar || off_) return {};
  options_.grammar->fill(mask_);
  if (state_ == Thinking::may) {
    const auto id = static_cast<size_t>(options_.opening_tag[0]);
    if (id / 32 < mask_.size()) mask_[id / 32] |= 1U << (id % 32);
  }
  return mask_;
}

void AnswerConstraint::allow_only(int32_t token) {
  std::fill(mask_.begin(), mask_.end(), 0U);
  const auto id = static_cast<size_t>(token);
  if (id / 32 < mask_.size()) mask_[id / 32] |= 1U << (id % 32);
}

bool AnswerConstraint::needs_next_token() const {
  if (options_.grammar && !off_) return true;
  if (state_ == Thinking::none || options_.thinking_budget < 0) return false;
  return state_ == Thinking::may || thought_ + 1 >= options_.thinking_budget;
}

}  // namespace lorikeet::model
