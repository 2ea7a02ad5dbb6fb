// Processes that a test plays itself: it sees what they are told, and says what they say.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "actors/supervisor/process_keeper.h"

namespace lorikeet::actors {

class FakeProcesses final : public Processes {
 public:
  ChildId spawn(ChildStart start, ChildId head) override {
    started.push_back(std::move(start));
    heads.push_back(head);
    return started.size();
  }
  // Pings are counted, not noted.
  void tell(ChildId child, const ChildOrder& order) override {
    if (std::holds_alternative<control::Ping>(order)) {
      ++pings;
    } else {
      told.emplace_back(child, order);
    }
  }
  void kill(ChildId child) override { killed.push_back(child); }
  bool is_stopped(ChildId child) override { return contains(stopped, child); }
  bool is_ending(ChildId child) override {
    return contains(ending, child) || contains(gone, child) || child < 1 || child > started.size();
  }
  bool awaits_host(ChildId child) override { return contains(awaiting, child); }
  void drop_regions(int32_t rank) override { dropped.push_back(rank); }
  std::string describe(ChildId child) override { return "process " + std::to_string(100 + child); }

  static bool contains(const std::vector<ChildId>& list, ChildId child) {
    return std::find(list.begin(), list.end(), child) != list.end();
  }

  std::vector<ChildStart> started;  // child n is started[n - 1]
  std::vector<ChildId> heads;       // that they are connected with
  std::vector<std::pair<ChildId, ChildOrder>> told;
  std::vector<ChildId> killed, stopped, ending, awaiting;
  std::vector<ChildId> gone;     // reaped, whether or not their exit has been told
  std::vector<int32_t> dropped;  // ranks whose memory is let go
  int pings = 0;
};

}  // namespace lorikeet::actors
