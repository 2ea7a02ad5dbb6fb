#include "actors/rank/rank_thread.h"

#include <fmt/format.h>

#include <new>
#include <utility>

#include "comm/codec/codec.h"
#include "comm/collective/collective.h"

namespace lorikeet::actors {
namespace {

using Clock = std::chrono::steady_clock;

// How often a device's step is looked at while the next plan may come.
constexpr std::chrono::microseconds kStepPoll{20};

int64_t now_ns() {
  return Clock::now().time_since_epoch().count();
}

}  // namespace

RankThread::RankThread(Setup setup, std::shared_ptr<RankBackend> backend, Callbacks callbacks)
    : setup_(setup),
      backend_(std::move(backend)),
      callbacks_(std::move(callbacks)),
      queue_(kMaxQueuedPlanBytes),
      thread_([this] { run(); }) {}

RankThread::~RankThread() {
  abort();
  thread_.join();
}

Result<void> RankThread::form(int32_t num_blocks, std::unique_ptr<comm::Rendezvous> store) {
  if (queue_.push(Form{num_blocks, std::move(store)}, 0) || queue_.closed()) return {};
  return fail("no room for the group that is to be formed");
}

Result<void> RankThread::plan(std::vector<uint8_t> encoded) {
  const size_t bytes = encoded.size();
  if (queue_.push(std::move(encoded), bytes) || queue_.closed()) return {};
  return fail("no room for a plan of {} bytes behind {} that wait", bytes, queue_.bytes());
}

void RankThread::abort() {
  queue_.close();
  backend_->abort();
}

std::optional<std::chrono::milliseconds> RankThread::step_age() const {
  const int64_t started = step_started_ns_;
  if (started == 0) return std::nullopt;
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::nanoseconds(now_ns() - started));
}

void RankThread::run() {
  if (!load()) return;
  auto work = queue_.pop();
  if (!work) return;
  auto* form = std::get_if<Form>(&*work);
  if (form == nullptr) return callbacks_.fatal("a plan has come before the group was formed");
  if (join(std::move(*form))) step_loop();
}

bool RankThread::load() {
  Result<RankLoaded> loaded = fail("not tried");
  try {
    loaded = backend_->load(callbacks_.loading);
  } catch (const std::bad_alloc&) {
    loaded = fail("the host's memory does not hold the weights");
  }
  if (!loaded) {
    callbacks_.fatal(loaded.error().message);
    return false;
  }
  most_blocks_ = loaded->num_blocks;
  send(*loaded);
  return true;
}

bool RankThread::join(Form form) {
  if (form.num_blocks < 1 || form.num_blocks > most_blocks_) {
    callbacks_.fatal(fmt::format("the group is to hold {} KV blocks, where this rank can hold 1 .. {}", form.num_blocks,
                                 most_blocks_));
    return false;
  }
  Result<std::shared_ptr<model::RankModel>> made = fail("not tried");
  try {
    made = backend_->join(*form.store, fmt::format("epoch{}/", setup_.epoch), form.num_blocks);
  } catch (const comm::CollectiveError& error) {
    made = fail("the ranks did not meet: {}", error.what());
  } catch (const std::bad_alloc&) {
    made = fail("the host's memory does not hold weights and KV cache; see --kv-cache-memory-bytes");
  }
  if (!made) {
    callbacks_.fatal(made.error().message);
    return false;
  }
  model_ = *std::move(made);
  executor_.emplace(*model_, setup_.rank, setup_.block_size, form.num_blocks, setup_.num_slots, setup_.grammars,
                    setup_.vocab_size);
  callbacks_.formed(model_);
  send(RankReady{});
  return true;
}

// Begins plans as they come, two at the most, and finishes steps as soon as they are ready; waits for a step in small
// slices while the plan that could run behind it is not here yet.
void RankThread::step_loop() {
  for (;;) {
    if (executor_->in_flight() < model::RankModel::kMaxStepsInFlight) {
      const auto work = next_work();
      if (work && !begin(*work)) return;
    }
    const bool full = executor_->in_flight() == model::RankModel::kMaxStepsInFlight;
    if (executor_->in_flight() > 0 && (full || executor_->ready())) {
      if (!finish()) return;
      continue;
    }
    if (queue_.closed()) return;
  }
}

// The next plan. Without a step in flight it waits for one, with one a little.
std::optional<RankThread::Work> RankThread::next_work() {
  if (executor_->in_flight() == 0) return queue_.pop();
  return queue_.pop_within(executor_->ready() ? std::chrono::microseconds(0) : kStepPoll);
}

bool RankThread::begin(const Work& work) {
  const auto* encoded = std::get_if<EncodedPlan>(&work);
  if (encoded == nullptr) {
    callbacks_.fatal("the group is to be formed a second time");
    return false;
  }
  const auto plan = comm::decode<engine::StepPlan>(*encoded);
  while (plan && executor_->must_wait(*plan)) {
    if (!finish()) return false;
  }
  return guarded(plan ? plan->step : engine::StepId(0), [&]() -> Result<void> {
    if (!plan) return tl::unexpected(plan.error());
    if (step_started_ns_ == 0) step_started_ns_ = now_ns();
    if (auto ok = executor_->begin(*plan); !ok) return ok;
    begun_.push_back(plan->step);
    return {};
  });
}

bool RankThread::finish() {
  return guarded(begun_.front(), [&]() -> Result<void> {
    auto result = executor_->finish();
    if (!result) return tl::unexpected(result.error());
    begun_.pop_front();
    ++steps_finished_;
    step_started_ns_ = begun_.empty() ? 0 : now_ns();
    send(*result);
    return {};
  });
}

bool RankThread::guarded(engine::StepId step, const std::function<Result<void>()>& work) {
  engine::StepResult failed;
  Result<void> done;
  try {
    done = work();
  } catch (const comm::CollectiveError& error) {
    done = fail("{}", error.what());
    failed.peer_failed = true;
  }
  if (done) return true;
  failed.epoch = engine::Epoch(setup_.epoch);
  failed.step = step;
  failed.rank = setup_.rank;
  failed.error = done.error().message;
  step_started_ns_ = 0;
  send(failed);
  return false;
}

void RankThread::send(const GroupReport& report) {
  send(EnvelopeStream::group, 0, comm::encode(report));
}

void RankThread::send(const engine::StepResult& result) {
  send(EnvelopeStream::steps, result.step.value(), comm::encode(result));
}

void RankThread::send(EnvelopeStream stream, uint64_t step, std::vector<uint8_t> bytes) {
  const Envelope like{stream, setup_.rank, setup_.epoch, step, true, {}};
  for (Envelope& part : split(like, std::move(bytes))) callbacks_.to_scheduler(std::move(part));
}

}  // namespace lorikeet::actors
