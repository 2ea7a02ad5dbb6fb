#include "engine/engine.h"

#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>
#include <utility>

#include "engine/engine_impl.h"

namespace lorikeet::engine {
namespace {

EngineConfig checked(EngineConfig config) {
  CHECK_GT(config.max_model_len, 1);
  CHECK_GT(config.max_num_seqs, 0);
  CHECK_GT(config.max_num_batched_tokens, 0);
  CHECK_GT(config.block_size, 0);
  CHECK_GT(config.num_blocks, 0);
  CHECK_GT(config.max_plans_in_flight, 0);
  // Every running sequence gets its token in every step.
  config.max_num_seqs = std::min(config.max_num_seqs, config.max_num_batched_tokens);
  return config;
}

tl::unexpected<RequestError> refuse(ErrorCode code, std::string message) {
  return tl::unexpected<RequestError>(RequestError{code, std::move(message)});
}

}  // namespace

Engine::Impl::Impl(EngineConfig c)
    : config(checked(c)), kv(config.num_blocks, config.block_size, config.enable_prefix_caching) {}

// ---- requests ----

tl::expected<void, RequestError> Engine::Impl::check(const Request& request) const {
  if (!available) return refuse(ErrorCode::rank_lost, "the ranks are not available at the moment");
  if (sequences.contains(request.id)) {
    return refuse(ErrorCode::internal, fmt::format("request id {} is already in use", request.id.value()));
  }
  if (request.prompt.empty()) return refuse(ErrorCode::invalid_request, "the prompt is empty");
  const int64_t max_tokens = request.sampling.max_tokens;
  if (max_tokens < 1) {
    return refuse(ErrorCode::invalid_request, fmt::format("max_tokens is {}, but must be at least 1", max_tokens));
  }
  const auto prompt_size = static_cast<int64_t>(request.prompt.size());
  if (prompt_size + max_tokens > config.max_model_len) {
    return refuse(ErrorCode::too_long,
                  fmt::format("the prompt has {} tokens and max_tokens is {}, but the context holds {} in all",
                              prompt_size, max_tokens, config.max_model_len));
  }
  // The last token is emitted, never computed. No overflow: both are at most max_model_len.
  const int32_t blocks = blocks_for(static_cast<int32_t>(prompt_size + max_tokens - 1), config.block_size);
  if (blocks > config.num_blocks) {
    return refuse(
        ErrorCode::too_long,
        fmt::format("a prompt of {} tokens with max_tokens {} needs {} KV blocks of {} tokens, but there are {}",
                    prompt_size, max_tokens, blocks, config.block_size, config.num_blocks));
  }
  if (stats.waiting >= config.max_num_queued_requests) {
    return refuse(ErrorCode::queue_full, fmt::format("{} requests are already waiting", stats.waiting));
  }
  return {};
}

tl::expected<void, RequestError> Engine::Impl::add(Request request) {
  if (auto passed = check(request); !passed) return passed;
  const SequenceId id = request.id;
  const GroupId group = queue.join(request.adapter);
  const Prefix root = kv.open_root(request.adapter, request.cache_salt);
  auto sequence = pool.make(std::move(request), ++num_arrivals, group, root);
  queue.push(*sequence);
  sequences.emplace(id, std::move(sequence));
  ++stats.waiting;
  ask_leases(group);
  return {};
}

void Engine::Impl::ask_leases(GroupId group) {
  if (!available) return;
  for (const Sequence* sequence : queue.ask_leases(group)) {
    adapter_calls.push_back(AcquireAdapter{sequence->id(), sequence->adapter()});
  }
}

bool Engine::Impl::adapter_ready(SequenceId id, SlotId slot) {
  const auto found = sequences.find(id);
  if (found == sequences.end()) return false;
  Sequence& sequence = *found->second;
  sequence.hold_lease(slot);
  if (sequence.state() == SequenceState::ended) bury(sequence);
  return true;
}

void Engine::Impl::adapter_failed(SequenceId id, std::string message) {
  const auto found = sequences.find(id);
  if (found == sequences.end()) return;
  Sequence& sequence = *found->second;
  sequence.lose_lease();
  if (sequence.state() == SequenceState::ended) {
    bury(sequence);
  } else {
    fail(sequence, {ErrorCode::adapter_failed, std::move(message)});
    settle();
  }
}

void Engine::Impl::finish(SequenceId id, FinishReason reason) {
  const auto found = sequences.find(id);
  if (found == sequences.end() || found->second->state() == SequenceState::ended) return;
  finish(*found->second, reason, -1);
  settle();
}

void Engine::Impl::finish(Sequence& sequence, FinishReason reason, int32_t stop_token_id) {
  events.emplace_back(FinishEvent{sequence.id(), reason, stop_token_id, sequence.num_cached_tokens()});
  end(sequence);
}

void Engine::Impl::fail(Sequence& sequence, RequestError error) {
  events.emplace_back(FailEvent{sequence.id(), std::move(error)});
  end(sequence);
}

void Engine::Impl::end(Sequence& sequence) {
  switch (sequence.state()) {
    case SequenceState::running:
      kv.release(sequence);
      finished_on_ranks.push_back(sequence.id());
      break;
    case SequenceState::waiting:
      queue.remove(sequence);
      --stats.waiting;
      break;
    case SequenceState::preempted:
      queue.remove(sequence);
      --stats.preempted;
      break;
    case SequenceState::ended:
      break;
  }
  sequence.end();
  unsettled.push_back(&sequence);
}

// Clears up after sequences that have ended: all at once, since many may end in one step.
void Engine::Impl::settle() {
  if (unsettled.empty()) return;
  size_t kept = 0;
  for (size_t i = 0; i < running.size(); ++i) {
    if (running[i]->state() == SequenceState::ended) continue;
    running[kept] = running[i];
    running_view[kept++] = running_view[i];
  }
  running.resize(kept);
  running_view.resize(kept);
  for (Sequence* sequence : unsettled) {
    ask_leases(sequence->group());
    bury(*sequence);
  }
  unsettled.clear();
}

// Destroys an ended sequence and gives its lease back, once no plan and no answer of the adapter cache can name it.
void Engine::Impl::bury(Sequence& sequence) {
  CHECK(sequence.state() == SequenceState::ended);
  if (sequence.rows_in_flight() > 0 || sequence.lease() == LeaseState::asked) return;
  if (sequence.lease() == LeaseState::held) adapter_calls.push_back(ReleaseAdapter{sequence.id(), sequence.adapter()});
  queue.leave(sequence.group());
  kv.close_root(sequence.root());
  sequences.erase(sequence.id());
}

void Engine::Impl::ranks_lost(const std::string& why) {
  available = false;
  in_flight.clear();
  std::vector<Sequence*> by_arrival;
  for (const auto& [id, sequence] : sequences) by_arrival.push_back(sequence.get());
  std::ranges::sort(by_arrival, {}, &Sequence::arrival);
  for (Sequence* sequence : by_arrival) {
    sequence->forget_rows_in_flight();
    if (sequence->state() == SequenceState::ended) {
      unsettled.push_back(sequence);
    } else {
      fail(*sequence, {ErrorCode::rank_lost, why});
    }
  }
  settle();
  finished_on_ranks.clear();
  kv.clear();
}

// ---- the public face ----

Engine::Engine(EngineConfig config) : impl_(std::make_unique<Impl>(config)) {}
Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

tl::expected<void, RequestError> Engine::add(Request request) {
  return impl_->add(std::move(request));
}

bool Engine::adapter_ready(SequenceId id, SlotId slot) {
  return impl_->adapter_ready(id, slot);
}
void Engine::adapter_failed(SequenceId id, std::string message) {
  impl_->adapter_failed(id, std::move(message));
}
void Engine::finish(SequenceId id, FinishReason reason) {
  impl_->finish(id, reason);
}
std::optional<StepPlan> Engine::plan() {
  return impl_->plan();
}
void Engine::absorb(const StepResult& result) {
  impl_->absorb(result);
}
void Engine::ranks_lost(const std::string& why) {
  impl_->ranks_lost(why);
}

void Engine::start_epoch(Epoch epoch) {
  CHECK(!impl_->available) << "epoch " << epoch.value() << " began before the ranks of the last one were lost";
  CHECK_GT(epoch.value(), impl_->epoch.value());
  impl_->epoch = epoch;
  impl_->last_step = StepId();
  impl_->available = true;
}

bool Engine::available() const {
  return impl_->available;
}

std::vector<Event> Engine::take_events() {
  return std::exchange(impl_->events, {});
}
std::vector<AdapterCall> Engine::take_adapter_calls() {
  return std::exchange(impl_->adapter_calls, {});
}

EngineStats Engine::stats() const {
  EngineStats stats = impl_->stats;
  stats.running = static_cast<int32_t>(impl_->running.size());
  stats.blocks_total = impl_->kv.num_blocks();
  stats.blocks_free = impl_->kv.num_free();
  stats.plans_in_flight = static_cast<int32_t>(impl_->in_flight.size());
  return stats;
}

}  // namespace lorikeet::engine
