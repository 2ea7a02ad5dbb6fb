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

RankThread::RankThread(Setup setup, std::shared_ptr<RankBackend> backend, Outlets outlets)
    : setup_(setup), backend_(std::move(backend)), outlets_(std::move(outlets)), thread_([this] { run(); }) {}

RankThread::~RankThread() {
  abort();
  thread_.join();
}

void RankThread::form(int32_t num_blocks, std::unique_ptr<comm::Rendezvous> store) {
  {
    const std::lock_guard lock(mutex_);
    form_ = Form{num_blocks, std::move(store)};
  }
  wake_.notify_one();
}

void RankThread::plan(std::vector<uint8_t> encoded) {
  {
    const std::lock_guard lock(mutex_);
    plans_.push_back(std::move(encoded));
  }
  wake_.notify_one();
}

void RankThread::abort() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  backend_->abort();
  wake_.notify_one();
}

std::optional<std::chrono::milliseconds> RankThread::step_age() const {
  const int64_t started = step_started_ns_;
  if (started == 0) return std::nullopt;
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::nanoseconds(now_ns() - started));
}

void RankThread::run() {
  if (!load()) return;
  Form form;
  {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return stop_ || form_; });
    if (stop_) return;
    form = *std::exchange(form_, std::nullopt);
  }
  if (join(std::move(form))) step_loop();
}

bool RankThread::load() {
  Result<RankLoaded> loaded = fail("not tried");
  try {
    loaded = backend_->load([this](int done, int total) {
      outlets_.progress(fmt::format("rank {}: layer {} of {}", setup_.rank, done, total));
    });
  } catch (const std::bad_alloc&) {
    loaded = fail("the host's memory does not hold the weights");
  }
  if (!loaded) {
    outlets_.fatal(loaded.error().message);
    return false;
  }
  send(EnvelopeKind::loaded, 0, comm::encode(*loaded));
  return true;
}

bool RankThread::join(Form form) {
  Result<std::shared_ptr<model::RankModel>> made = fail("not tried");
  try {
    made = backend_->join(*form.store, fmt::format("epoch{}/", setup_.epoch), form.num_blocks);
  } catch (const comm::CollectiveError& error) {
    made = fail("the ranks did not meet: {}", error.what());
  } catch (const std::bad_alloc&) {
    made = fail("the host's memory does not hold weights and KV cache; see --kv-cache-memory-bytes");
  }
  if (!made) {
    outlets_.fatal(made.error().message);
    return false;
  }
  model_ = *std::move(made);
  executor_.emplace(*model_, setup_.rank, setup_.block_size, form.num_blocks, setup_.num_slots);
  outlets_.formed(model_);
  send(EnvelopeKind::ready, 0, {});
  return true;
}

// Begins plans as they come, two at the most, and finishes steps as soon as they are ready; waits for a step in small
// slices while the plan that could run behind it is not here yet.
void RankThread::step_loop() {
  std::vector<uint8_t> encoded;
  for (;;) {
    if (executor_->in_flight() < model::RankModel::kMaxStepsInFlight && next_plan(encoded)) {
      if (!begin(encoded)) return;
    }
    const bool full = executor_->in_flight() == model::RankModel::kMaxStepsInFlight;
    if (executor_->in_flight() > 0 && (full || executor_->ready())) {
      if (!finish()) return;
      continue;
    }
    const std::lock_guard lock(mutex_);
    if (stop_) return;
  }
}

// The next plan. Without a step in flight it waits for one, with one a little.
bool RankThread::next_plan(std::vector<uint8_t>& encoded) {
  std::unique_lock lock(mutex_);
  const auto something = [this] { return stop_ || !plans_.empty(); };
  if (executor_->in_flight() == 0) {
    wake_.wait(lock, something);
  } else if (!executor_->ready()) {
    wake_.wait_for(lock, kStepPoll, something);
  }
  if (stop_ || plans_.empty()) return false;
  encoded = std::move(plans_.front());
  plans_.pop_front();
  return true;
}

bool RankThread::begin(const std::vector<uint8_t>& encoded) {
  const auto plan = comm::decode<engine::StepPlan>(encoded);
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
    send(EnvelopeKind::result, result->step.value(), comm::encode(*result));
    return {};
  });
}

bool RankThread::guarded(engine::StepId step, const std::function<Result<void>()>& work) {
  Result<void> done;
  try {
    done = work();
  } catch (const comm::CollectiveError& error) {
    done = fail("{}", error.what());
  }
  if (done) return true;
  engine::StepResult failed;
  failed.epoch = engine::Epoch(setup_.epoch);
  failed.step = step;
  failed.rank = setup_.rank;
  failed.error = done.error().message;
  step_started_ns_ = 0;
  send(EnvelopeKind::result, step.value(), comm::encode(failed));
  return false;
}

void RankThread::send(EnvelopeKind kind, uint64_t step, std::vector<uint8_t> bytes) {
  const Envelope like{kind, setup_.rank, setup_.epoch, step, true, {}};
  for (Envelope& part : split(like, std::move(bytes))) outlets_.to_scheduler(std::move(part));
}

}  // namespace lorikeet::actors
