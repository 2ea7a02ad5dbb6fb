#include "actors/head/pause_log.h"

#include <utility>

namespace lorikeet::actors {

uint64_t PauseLog::took(TimePoint now) {
  const auto time = now - std::exchange(phase_began_, now);
  return time.count() > 0 ? static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(time).count())
                          : 0;
}

void PauseLog::lost(uint64_t epoch, const std::string& why, std::optional<TimePoint> silent_since, TimePoint now) {
  ++totals_.losses;
  if (phase_ == Phase::flowing) {
    pause_ = {};
    phase_began_ = silent_since.value_or(now);
    pause_.detect_us = took(now);
  } else {
    pause_.again_us += took(now);
  }
  ++pause_.losses;
  pause_.epoch = epoch;
  pause_.why = why;
  phase_ = Phase::fencing;
}

void PauseLog::epoch_began(const std::string& why, bool by_rank, TimePoint now) {
  if (phase_ != Phase::fencing) return;
  if (!why.empty()) pause_.why = why;
  pause_.by_rank = by_rank;
  totals_.losses_by_rank += by_rank ? 1 : 0;
  pause_.fence_us += took(now);
  phase_ = Phase::starting;
}

void PauseLog::all_loaded(TimePoint now) {
  if (phase_ != Phase::starting) return;
  pause_.start_us += took(now);
  phase_ = Phase::joining;
}

void PauseLog::served(bool anybody_waits, TimePoint now) {
  if (phase_ != Phase::joining) return;
  pause_.join_us += took(now);
  phase_ = Phase::computing;
  if (!anybody_waits) end();
}

void PauseLog::token(TimePoint now) {
  if (phase_ != Phase::computing) return;
  pause_.first_token_us += took(now);
  end();
}

void PauseLog::end() {
  phase_ = Phase::flowing;
  pause_.total_us =
      pause_.detect_us + pause_.again_us + pause_.fence_us + pause_.start_us + pause_.join_us + pause_.first_token_us;
  ++totals_.ended;
  totals_.total_us += pause_.total_us;
  latest_.push_back(std::move(pause_));
  if (latest_.size() > kMaxKept) latest_.erase(latest_.begin());
}

}  // namespace lorikeet::actors
