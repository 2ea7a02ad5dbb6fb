#include "actors/rank/rank_thread.h"

#include <fmt/format.h>

#include <limits>
#include <new>
#include <utility>

#include "actors/wire/step_codec.h"
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
      own_epoch_(setup.epoch),
      queue_(kMaxQueuedPlanBytes),
      epoch_(setup.epoch),
      thread_([this] { run(); }) {}

RankThread::~RankThread() {
  queue_.close();
  backend_->abort(std::numeric_limits<uint64_t>::max());
  thread_.join();
}

Result<void> RankThread::form(int32_t num_blocks, std::unique_ptr<comm::Rendezvous> store) {
  if (queue_.push(Form{epoch_, num_blocks, std::move(store)}, 0) || queue_.closed()) return {};
  return fail("no room for the group that is to be formed");
}

Result<void> RankThread::plan(std::vector<uint8_t> encoded) {
  const size_t bytes = encoded.size();
  if (queue_.push(EncodedPlan{epoch_, std::move(encoded)}, bytes) || queue_.closed()) return {};
  return fail("no room for a plan of {} bytes behind {} that wait", bytes, queue_.bytes());
}

void RankThread::fence() {
  backend_->abort(epoch_ + 1);
}

void RankThread::leave(uint64_t epoch, std::shared_ptr<void> what_ends) {
  epoch_ = epoch;
  backend_->abort(epoch);
  queue_.push(Leave{epoch, std::move(what_ends)}, 0);
}

void RankThread::announce() {
  queue_.push(Announce{epoch_}, 0);
}

std::optional<std::chrono::milliseconds> RankThread::step_age() const {
  const int64_t started = step_started_ns_;
  if (started == 0) return std::nullopt;
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::nanoseconds(now_ns() - started));
}

void RankThread::run() {
  if (!load()) return;
  for (auto work = queue_.pop(); work; work = next_ ? std::exchange(next_, std::nullopt) : queue_.pop()) {
    if (!std::visit([this](auto& what) { return perform(what); }, *work)) return;
  }
}

// Drops work of earlier epochs.
bool RankThread::perform(Form& form) {
  if (form.epoch != epoch_) return true;
  if (form.epoch == formed_epoch_) {
    callbacks_.fatal("the group is to be formed a second time");
    return false;
  }
  formed_epoch_ = form.epoch;
  try {
    if (!join(form)) return false;
    next_ = step_loop();
  } catch (const comm::CollectiveError& error) {  // the next epoch's group may be joined
    report_failure(engine::StepId(0), fmt::format("the ranks did not meet: {}", error.what()), true);
  }
  return true;
}

bool RankThread::perform(const EncodedPlan& plan) {
  if (plan.epoch != epoch_ || plan.epoch == formed_epoch_) return true;  // the latter: a step of it has failed
  callbacks_.fatal("a plan has come before the group was formed");
  return false;
}

bool RankThread::perform(Leave& leave) {
  executor_.reset();
  begun_.clear();
  stop_clock();
  leave.what_ends.reset();
  callbacks_.left(leave.epoch);
  return true;
}

bool RankThread::perform(const Announce& announce) {
  own_epoch_ = announce.epoch;
  backend_->update(*loaded_);
  send(*loaded_);
  return true;
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
  loaded_ = *loaded;
  pace_.emplace(step_cost_of(setup_.options, backend_->shard_plan()), setup_.options.device == "cuda",
                step_allowance(setup_.options));
  send(*loaded_);
  return true;
}

bool RankThread::join(Form& form) {
  if (form.num_blocks < 1 || form.num_blocks > loaded_->num_blocks) {
    callbacks_.fatal(fmt::format("the group is to hold {} KV blocks, where this rank can hold 1 .. {}", form.num_blocks,
                                 loaded_->num_blocks));
    return false;
  }
  Result<std::shared_ptr<model::RankModel>> made = fail("not tried");
  try {
    made = backend_->join(*form.store, form.epoch, form.num_blocks);
  } catch (const std::bad_alloc&) {
    made = fail("the host's memory does not hold weights and KV cache; see --kv-cache-memory-bytes");
  }
  if (!made) {
    callbacks_.fatal(made.error().message);
    return false;
  }
  model_ = *std::move(made);
  loaded_->num_blocks = form.num_blocks;  // what there is from now on
  executor_.emplace(*model_, setup_.rank, setup_.block_size, form.num_blocks, setup_.num_slots, setup_.grammars,
                    setup_.vocab_size);
  callbacks_.formed(model_, form.epoch);
  send(RankReady{});
  return true;
}

// Begins plans as they come, two at most, and finishes steps as soon as they are ready. While the next plan has not come,
// it waits for the step in small slices. Returns the first work that is no plan; nothing where a step has failed, or the
// queue was closed.
std::optional<RankThread::Work> RankThread::step_loop() {
  for (;;) {
    if (executor_->in_flight() < model::RankModel::kMaxStepsInFlight) {
      auto work = next_work();
      if (work) {
        const auto* plan = std::get_if<EncodedPlan>(&*work);
        if (plan == nullptr) return work;
        if (plan->epoch == formed_epoch_ && !begin(*plan)) return std::nullopt;
      }
    }
    const bool full = executor_->in_flight() == model::RankModel::kMaxStepsInFlight;
    if (executor_->in_flight() > 0 && (full || executor_->ready())) {
      if (!finish()) return std::nullopt;
      continue;
    }
    if (queue_.closed()) return std::nullopt;
  }
}

// The next plan. Without a step in flight it waits for one, with one a little.
std::optional<RankThread::Work> RankThread::next_work() {
  if (executor_->in_flight() == 0) return queue_.pop();
  return queue_.pop_within(executor_->ready() ? std::chrono::microseconds(0) : kStepPoll);
}

bool RankThread::begin(const EncodedPlan& encoded) {
  const auto plan = decode_plan(encoded.bytes);
  while (plan && executor_->must_wait(*plan)) {
    if (!finish()) return false;
  }
  const bool begun = guarded(plan ? plan->step : engine::StepId(0), [&]() -> Result<void> {
    if (!plan) return tl::unexpected(plan.error());
    const StepPace::Floor floor = pace_->floor_of(*plan);
    if (step_started_ns_ == 0) start_clock(floor);
    if (auto ok = executor_->begin(*plan); !ok) return ok;
    begun_.push_back({plan->step, floor});
    return {};
  });
  if (!begun || !executor_->awaits_constraints()) return begun;
  while (executor_->in_flight() > 1) {
    if (!finish()) return false;
  }
  return guarded(plan->step, [&]() -> Result<void> {
    executor_->constrain();
    return {};
  });
}

void RankThread::start_clock(const StepPace::Floor& floor) {
  const std::chrono::nanoseconds limit = pace_->limit_of(floor);
  stop_clock();
  step_limit_ms_ = std::chrono::duration_cast<std::chrono::milliseconds>(limit).count();
  step_started_ns_ = now_ns();
  step_deadline_ns_ = step_started_ns_ + limit.count();
}

// Sets the deadline first: other threads see either no step, or a step with its own deadline.
void RankThread::stop_clock() {
  step_deadline_ns_ = 0;
  step_started_ns_ = 0;
}

bool RankThread::step_is_overdue() const {
  const int64_t deadline = step_deadline_ns_;
  return deadline != 0 && now_ns() > deadline;
}

bool RankThread::finish() {
  return guarded(begun_.front().step, [&]() -> Result<void> {
    auto result = executor_->finish();
    if (!result) return tl::unexpected(result.error());
    pace_->took(begun_.front().floor, std::chrono::nanoseconds(now_ns() - step_started_ns_));
    begun_.pop_front();
    ++steps_finished_;
    if (begun_.empty()) {
      stop_clock();
    } else {
      start_clock(begun_.front().floor);
    }
    send(*result);
    return {};
  });
}

bool RankThread::guarded(engine::StepId step, const std::function<Result<void>()>& work) {
  Result<void> done;
  bool peer_failed = false;
  try {
    done = work();
  } catch (const comm::CollectiveError& error) {
    done = fail("{}", error.what());
    peer_failed = true;
  }
  if (done) return true;
  report_failure(step, done.error().message, peer_failed);
  return false;
}

void RankThread::report_failure(engine::StepId step, std::string error, bool peer_failed) {
  engine::StepResult failed;
  failed.epoch = engine::Epoch(formed_epoch_);
  failed.step = step;
  failed.rank = setup_.rank;
  failed.error = std::move(error);
  failed.peer_failed = peer_failed;
  stop_clock();
  send(failed);
}

void RankThread::send(const GroupReport& report) {
  send(EnvelopeStream::group, 0, comm::encode(report));
}

void RankThread::send(const engine::StepResult& result) {
  send(EnvelopeStream::steps, result.step.value(), encode_result(result));
}

void RankThread::send(EnvelopeStream stream, uint64_t step, std::vector<uint8_t> bytes) {
  const Envelope like{stream, setup_.rank, own_epoch_, step, true, {}};
  for (Envelope& part : split(like, std::move(bytes))) callbacks_.to_scheduler(std::move(part));
}

}  // namespace lorikeet::actors
