#include "engine/engine.h"

#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>
#include <utility>

namespace lorikeet::engine {
namespace {

EngineConfig checked(EngineConfig config) {
  CHECK_GT(config.max_model_len, 1);
  CHECK_GT(config.max_num_seqs, 0);
  CHECK_GT(config.max_num_batched_tokens, 0);
  CHECK_GT(config.block_size, 0);
  CHECK_GT(config.num_blocks, 0);
  CHECK_GT(config.max_plans_in_flight, 0);
  CHECK_LE(config.max_plans_in_flight, Sequence::kMaxRowsInFlight);
  CHECK_GT(config.turn_tokens, 0);
  // Every running sequence gets its token in every step.
  config.max_num_seqs = std::min(config.max_num_seqs, config.max_num_batched_tokens);
  return config;
}

tl::unexpected<RequestError> refuse(ErrorCode code, std::string message) {
  return tl::unexpected<RequestError>(RequestError{code, std::move(message)});
}

}  // namespace

Engine::Engine(EngineConfig config)
    : config_(checked(config)), kv_(config_.num_blocks, config_.block_size, config_.enable_prefix_caching) {}

EngineStats Engine::stats() const {
  EngineStats stats = stats_;
  stats.running = static_cast<int32_t>(running_.size() - num_gaps_);
  stats.blocks_total = kv_.num_blocks();
  stats.blocks_free = kv_.num_free();
  stats.kept = static_cast<int32_t>(kept_.size());
  stats.set_aside = static_cast<int32_t>(set_aside_.size());
  stats.plans_in_flight = static_cast<int32_t>(in_flight_.size());
  return stats;
}

// ---- requests ----

tl::expected<void, RequestError> Engine::check(const Request& request) const {
  if (!available_) return refuse(ErrorCode::rank_lost, "the ranks are not available at the moment");
  if (sequences_.find(request.id) != nullptr) {
    return refuse(ErrorCode::internal, fmt::format("request id {} is already in use", request.id.value()));
  }
  if (request.prompt.empty()) return refuse(ErrorCode::invalid_request, "the prompt is empty");
  const int64_t max_tokens = request.sampling.max_tokens;
  if (max_tokens < 1) {
    return refuse(ErrorCode::invalid_request, fmt::format("max_tokens is {}, but must be at least 1", max_tokens));
  }
  const auto prompt_size = static_cast<int64_t>(request.prompt.size());
  if (prompt_size + max_tokens > config_.max_model_len) {
    return refuse(ErrorCode::too_long,
                  fmt::format("the prompt has {} tokens and max_tokens is {}, but the context holds {} in all",
                              prompt_size, max_tokens, config_.max_model_len));
  }
  if (auto error = check_blocks(prompt_size, max_tokens, config_.num_blocks)) return tl::unexpected(*std::move(error));
  if (stats_.waiting >= config_.max_num_queued_requests) {
    return refuse(ErrorCode::queue_full, fmt::format("{} requests are already waiting", stats_.waiting));
  }
  return {};
}

// The last token is emitted, never computed. No overflow: both are at most max_model_len.
std::optional<RequestError> Engine::check_blocks(int64_t prompt_size, int64_t max_tokens, int32_t num_blocks) const {
  const int32_t blocks = blocks_for(static_cast<int32_t>(prompt_size + max_tokens - 1), config_.block_size);
  if (blocks <= num_blocks) return std::nullopt;
  return RequestError{
      ErrorCode::too_long,
      fmt::format("a prompt of {} tokens with max_tokens {} needs {} KV blocks of {} tokens, but there are {}",
                  prompt_size, max_tokens, blocks, config_.block_size, num_blocks)};
}

tl::expected<void, RequestError> Engine::add(Request request) {
  if (request.max_tokens_may_shrink) {
    const int64_t positions = int64_t{config_.num_blocks} * config_.block_size;
    const int64_t fit = positions - static_cast<int64_t>(request.prompt.size()) + 1;  // the last one has no position
    request.sampling.max_tokens = static_cast<int32_t>(std::clamp<int64_t>(fit, 1, request.sampling.max_tokens));
  }
  if (auto passed = check(request); !passed) return passed;
  const GroupId group = queue_.join(request.adapter);
  const Prefix root = kv_.open_root(request.adapter, request.cache_salt);
  auto sequence = pool_.make(std::move(request), ++num_arrivals_, group, root);
  queue_.push(*sequence);
  sequences_.insert(std::move(sequence));
  ++stats_.waiting;
  ask_leases(group);
  return {};
}

void Engine::ask_leases(GroupId group) {
  if (!available_) return;
  for (const Sequence* sequence : queue_.ask_leases(group)) {
    adapter_calls_.push_back(AcquireAdapter{sequence->id(), sequence->adapter()});
  }
}

bool Engine::adapter_ready(SequenceId id, SlotId slot) {
  Sequence* const found = sequences_.find(id);
  if (found == nullptr) return false;
  Sequence& sequence = *found;
  sequence.hold_lease(slot);
  if (sequence.state() != SequenceState::ended) queue_.note_lease(sequence);
  destroy_if_unused(sequence);
  return true;
}

void Engine::adapter_failed(SequenceId id, std::string message) {
  Sequence* const found = sequences_.find(id);
  if (found == nullptr) return;
  Sequence& sequence = *found;
  sequence.lose_lease();
  if (sequence.state() == SequenceState::ended) {
    destroy_if_unused(sequence);
  } else {
    fail(sequence, {ErrorCode::adapter_failed, std::move(message)});
  }
}

void Engine::finish(SequenceId id, FinishReason reason) {
  Sequence* const found = sequences_.find(id);
  if (found == nullptr || found->state() == SequenceState::ended) return;
  finish(*found, reason, -1);
}

void Engine::finish(Sequence& sequence, FinishReason reason, int32_t stop_token_id) {
  events_.emplace_back(FinishEvent{sequence.id(), reason, stop_token_id, sequence.num_cached_tokens()});
  end(sequence);
}

void Engine::fail(Sequence& sequence, RequestError error) {
  events_.emplace_back(Boxed<FailEvent>({sequence.id(), std::move(error)}));
  end(sequence);
}

// What it costs depends on the one sequence alone, however many others there are: thousands may end at once.
void Engine::end(Sequence& sequence) {
  const SequenceState state = sequence.state();
  if (state == SequenceState::running) {
    kv_.release(sequence);
    finished_on_ranks_.push_back(sequence.id());
    remove_running(sequence);
  } else {
    if (sequence.is_kept()) drop_kept(sequence);
    if (set_aside_.erase(sequence.arrival()) == 0) queue_.remove(sequence);
    --(state == SequenceState::waiting ? stats_.waiting : stats_.preempted);
  }
  if (on_trial_ == &sequence) on_trial_ = nullptr;
  before_trial_.erase(sequence.id());
  sequence.end();
  if (state != SequenceState::running) ask_leases(sequence.group());  // its place in the queue is free
  destroy_if_unused(sequence);
}

// Destroys an ended sequence and gives its lease back, once no plan and no answer of the adapter cache can name it.
void Engine::destroy_if_unused(Sequence& sequence) {
  if (sequence.state() != SequenceState::ended) return;
  if (sequence.rows_in_flight() > 0 || sequence.lease() == LeaseState::asked) return;
  if (sequence.lease() == LeaseState::held) adapter_calls_.push_back(ReleaseAdapter{sequence.id(), sequence.adapter()});
  queue_.leave(sequence.group());
  kv_.close_root(sequence.root());
  sequences_.extract(sequence.id());
}

}  // namespace lorikeet::engine
