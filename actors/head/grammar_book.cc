#include "actors/head/grammar_book.h"

#include <fmt/format.h>
#include <openssl/sha.h>

#include <algorithm>
#include <array>

namespace lorikeet::actors {
namespace {

constexpr size_t kMostOnTheWay = 16;  // sent and not answered: what waits on a rank is bounded
constexpr size_t kMostIdle = 256;
constexpr int kMostLosses = 3;

// 32 hex digits over language and text.
std::string digest_of(int32_t kind, const std::string& text) {
  const std::string whole = fmt::format("{}:{}", kind, text);
  std::array<uint8_t, SHA256_DIGEST_LENGTH> hash{};
  SHA256(reinterpret_cast<const uint8_t*>(whole.data()), whole.size(), hash.data());
  std::string digits;
  for (size_t i = 0; i < hash.size() / 2; ++i) digits += fmt::format("{:02x}", hash[i]);
  return digits;
}

}  // namespace

void GrammarBook::claim(Id id, engine::AnswerRules& rules) {
  std::string digest = digest_of(rules.grammar_kind, rules.grammar);
  Grammar& grammar = grammars_[digest];
  if (grammar.text.digest.empty()) grammar.text = {digest, rules.grammar_kind, std::move(rules.grammar)};
  if (grammar.idle) {
    idle_.erase(*grammar.idle);
    grammar.idle.reset();
  }
  ++grammar.claims;
  rules.grammar = digest;
  of_request_[id] = std::move(digest);
}

void GrammarBook::release(Id id) {
  const auto request = of_request_.find(id);
  if (request == of_request_.end()) return;
  const std::string digest = std::move(request->second);
  of_request_.erase(request);
  Grammar& grammar = grammars_.at(digest);
  if (--grammar.claims > 0) return;
  if (grammar.state == State::unsent) {
    grammars_.erase(digest);
    if (to_send_.size() >
        2 * grammars_.size() + kMostIdle) {  // most of them are gone: seldom, so it costs each a little
      std::erase_if(to_send_, [this](const std::string& other) { return !grammars_.contains(other); });
    }
  } else if (grammar.state == State::ready) {
    idle_.push_front(digest);
    grammar.idle = idle_.begin();
    if (idle_.size() > kMostIdle) drop(std::string(idle_.back()));
  }
}

bool GrammarBook::ready(Id id) {
  const auto request = of_request_.find(id);
  if (request == of_request_.end()) return true;
  Grammar& grammar = grammars_.at(request->second);
  if (grammar.state == State::ready) return true;
  grammar.waiting.push_back(id);
  enqueue(request->second, grammar);
  return false;
}

std::optional<std::string> GrammarBook::why_given_up(Id id) const {
  const auto request = of_request_.find(id);
  if (request == of_request_.end()) return std::nullopt;
  const Grammar& grammar = grammars_.at(request->second);
  if (grammar.losses < kMostLosses) return std::nullopt;
  return fmt::format("the ranks were lost {} times while they compiled its grammar", grammar.losses);
}

void GrammarBook::enqueue(const std::string& digest, Grammar& grammar) {
  if (grammar.state != State::unsent || std::exchange(grammar.queued, true)) return;
  to_send_.push_back(digest);
}

void GrammarBook::require(const std::string& digest) {
  const auto found = grammars_.find(digest);
  if (found != grammars_.end() && found->second.state == State::unsent) required_.push_back(digest);
}

void GrammarBook::group_serves() {
  serving_ = true;
}

void GrammarBook::group_lost() {
  serving_ = false;
  Grammar* compiled = nullptr;  // ranks compile in the order in which they are sent
  for (auto& [digest, grammar] : grammars_) {
    if (grammar.state != State::sent) continue;
    if (compiled == nullptr || grammar.number < compiled->number) compiled = &grammar;
  }
  if (compiled != nullptr) ++compiled->losses;
  std::erase_if(grammars_, [](const auto& item) { return item.second.claims == 0; });
  for (auto& [digest, grammar] : grammars_) {
    grammar.state = State::unsent;
    grammar.queued = false;
    grammar.bytes = 0;
    grammar.error.clear();
    grammar.waiting.clear();
  }
  idle_.clear();
  to_send_.clear();
  required_.clear();
  orders_.clear();
  outcomes_.clear();
  on_the_way_ = ready_ = bytes_ = 0;
  waits_since_.reset();
}

void GrammarBook::send(Grammar& grammar, TimePoint now) {
  grammar.state = State::sent;
  grammar.number = ++sendings_;
  grammar.queued = false;
  grammar.answers.assign(ranks_, false);
  grammar.missing = ranks_;
  grammar.bytes = 0;
  grammar.error.clear();
  orders_.emplace_back(grammar.text);
  if (on_the_way_++ == 0) waits_since_ = now;
}

// Where ranks hold as much as they may, what is idle leaves. The first one always finds room.
bool GrammarBook::make_room() {
  while (bytes_ >= max_bytes_ && !idle_.empty()) drop(std::string(idle_.back()));
  return bytes_ < max_bytes_ || ready_ == 0;
}

void GrammarBook::drop(const std::string& digest) {
  const auto found = grammars_.find(digest);
  Grammar& grammar = found->second;
  if (grammar.state == State::ready) {
    --ready_;
    bytes_ -= grammar.bytes;
  }
  if (grammar.idle) idle_.erase(*grammar.idle);
  orders_.emplace_back(GrammarDrop{digest});
  grammars_.erase(found);
}

std::vector<GroupOrder> GrammarBook::take_orders(TimePoint now) {
  for (const std::string& digest : std::exchange(required_, {})) {
    const auto found = grammars_.find(digest);
    if (found != grammars_.end() && found->second.state == State::unsent) send(found->second, now);
  }
  while (serving_ && !to_send_.empty()) {
    const auto found = grammars_.find(to_send_.front());
    if (found != grammars_.end() && found->second.state == State::unsent) {
      if (on_the_way_ >= kMostOnTheWay || !make_room()) break;
      send(found->second, now);
    }
    to_send_.pop_front();
  }
  return std::exchange(orders_, {});
}

Result<void> GrammarBook::answered(int32_t rank, const GrammarCompiled& answer, TimePoint now) {
  const auto found = grammars_.find(answer.digest);
  const auto index = static_cast<size_t>(rank);
  if (rank < 0 || index >= ranks_ || found == grammars_.end() || found->second.state != State::sent ||
      found->second.answers[index]) {
    return fail("rank {} answers of a grammar that it was not sent", rank);
  }
  waits_since_ = now;
  Grammar& grammar = found->second;
  grammar.answers[index] = true;
  grammar.bytes = std::max(grammar.bytes, answer.bytes);
  if (grammar.error.empty() && !answer.error.empty()) grammar.error = fmt::format("rank {}: {}", rank, answer.error);
  if (--grammar.missing == 0) settle(answer.digest, grammar);
  if (on_the_way_ == 0) waits_since_.reset();
  return {};
}

void GrammarBook::settle(const std::string& digest, Grammar& grammar) {
  --on_the_way_;
  const bool failed = !grammar.error.empty();
  for (const Id id : std::exchange(grammar.waiting, {})) outcomes_.push_back({id, grammar.error});
  if (!failed) {
    grammar.state = State::ready;
    grammar.losses = 0;
    ++ready_;
    bytes_ += grammar.bytes;
  } else {  // some ranks may have it
    grammar.state = State::unsent;
    orders_.emplace_back(GrammarDrop{digest});
  }
  if (grammar.claims > 0) return;
  if (failed) {
    grammars_.erase(digest);
  } else {
    idle_.push_front(digest);
    grammar.idle = idle_.begin();
  }
}

}  // namespace lorikeet::actors
