// How long the streams of a server stood still, and for what: the times between a group's loss and the next token.
//
//            lost()         epoch_began()      all_loaded()        served()         token()
//   flowing -------> fencing -----------> starting -------> joining -------> computing -------> flowing
//                       ^                     |                 |                |
//                       `---------------------+-----------------+----------------'  lost() again: the same pause
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "actors/wire/server_status.h"

namespace lorikeet::actors {

class PauseLog {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  static constexpr size_t kMaxKept = 8;  // pauses that are told of one by one

  // silent_since: when the group was last heard of, where something was asked of it.
  void lost(uint64_t epoch, const std::string& why, std::optional<TimePoint> silent_since, TimePoint now);
  void epoch_began(const std::string& why, bool by_rank, TimePoint now);  // `why` as the supervisor knows it
  void all_loaded(TimePoint now);
  void served(bool anybody_waits, TimePoint now);  // the pause ends here where nobody waits for a token
  void token(TimePoint now);

  const PauseTotals& totals() const { return totals_; }
  const std::vector<PauseStatus>& latest() const { return latest_; }  // the latest last

 private:
  enum class Phase : uint8_t { flowing, fencing, starting, joining, computing };
  uint64_t took(TimePoint now);  // microseconds since the phase began; the next one begins
  void end();

  Phase phase_ = Phase::flowing;
  TimePoint phase_began_;
  PauseStatus pause_;
  PauseTotals totals_;
  std::vector<PauseStatus> latest_;
};

}  // namespace lorikeet::actors
