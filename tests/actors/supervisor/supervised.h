// A supervision of two ranks, whose processes and clock a test plays.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "actors/supervisor/supervision.h"
#include "tests/actors/supervisor/fake_processes.h"

namespace lorikeet::actors {

class Supervised {
 public:
  explicit Supervised(const std::string& device = "cpu") {
    ServerOptions options;
    options.tensor_parallel_size = 2;
    options.device = device;
    options.zmq_address = "tcp://*:0";
    options.heartbeat_ms = 500;
    decides = std::make_unique<Supervision>(
        options, processes,
        Supervision::Callbacks{[this](const std::string& line) { progress.push_back(line); },
                               [this](int32_t rank, int32_t done, int32_t total) {
                                 progress.push_back(fmt::format("rank {}: layer {} of {}", rank, done, total));
                               },
                               [this](const control::Ready& told) { ready.push_back(told.address); },
                               [this](int status) { stopped.push_back(status); },
                               [this](const std::string& why) {
                                 progress.push_back(why);
                                 failures.push_back(why);
                               }});
    decides->start(now);
  }

  void say(uint64_t child, ChildReport report) { decides->said(child, report, now); }
  void exit(uint64_t child, const std::string& how = "was killed by signal 9") {
    const bool on_purpose = FakeProcesses::contains(processes.killed, child);
    processes.gone.push_back(child);
    decides->exited(child, how, on_purpose, how == "was killed by signal 11" ? SIGSEGV : 0, now);
  }

  // Head 1, ranks 2 and 3.
  void serve() {
    say(1, control::AwaitsRanks{});
    say(2, control::Alive{});
    say(3, control::Alive{});
    say(1, control::Ready{1, "tcp://127.0.0.1:5555"});
  }
  void serve_again() { say(1, control::Ready{decides->epoch(), "tcp://127.0.0.1:5555"}); }

  // Beats, to which all but these answer.
  void beat(int count, const std::vector<uint64_t>& silent = {}) {
    for (int i = 0; i < count; ++i) {
      now += std::chrono::milliseconds(500);
      decides->tick(now);
      for (uint64_t child = 1; child <= processes.started.size(); ++child) {
        if (!FakeProcesses::contains(silent, child)) say(child, control::Alive{});
      }
    }
  }

  Supervision::State state() const { return decides->state(); }
  const control::NewEpoch& new_epoch() const {
    const auto told = std::find_if(processes.told.rbegin(), processes.told.rend(), [](const auto& order) {
      return std::holds_alternative<control::NewEpoch>(order.second);
    });
    return std::get<control::NewEpoch>(told->second);
  }
  std::vector<uint64_t> told_to_leave(uint64_t epoch) const {
    std::vector<uint64_t> children;
    for (const auto& [child, order] : processes.told) {
      const auto* leave = std::get_if<control::LeaveGroup>(&order);
      if (leave != nullptr && leave->epoch == epoch) children.push_back(child);
    }
    return children;
  }

  FakeProcesses processes;
  std::vector<std::string> progress, failures, ready;
  std::vector<int> stopped;
  Supervision::TimePoint now{std::chrono::hours(1)};
  std::unique_ptr<Supervision> decides;
};

}  // namespace lorikeet::actors
