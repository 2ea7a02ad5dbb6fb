// What the adapters' tables cost a request, from its arrival to its end, by the number of names: a look at the files, a
// claim, a lease, its end. Goal: at 100,000 names at most 1.5 times of what it is at 100. 32 requests are live at a
// time, of different adapters. Disk and ranks answer at once. What a request brings along (its name, an adapter that is
// read for it) is made for it, as by a message that was just received; what the tables keep is in whatever cache it is.
//
//   few   the requests are for 64 of the names, as many as have slots: what the names beside them cost
//   all   the requests are for all names in turn, which are staged; each costs another one its slot
//   cold  the requests are for all names in turn, of which 64 are staged: each is read as well, and evicts another one
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/actors/head/adapter_tables.h"
#include "tests/actors/head/staged_adapters.h"

namespace lorikeet::actors {
namespace {

constexpr int32_t kSlots = 64;
constexpr int32_t kStaged = 64;  // cold
constexpr size_t kLive = 32;
constexpr uint64_t kBytes = 1 << 20;  // of every adapter

std::string name_of(size_t index) {
  return "adapter-" + std::to_string(index);
}

std::vector<std::pair<std::string, std::string>> modules(size_t count) {
  std::vector<std::pair<std::string, std::string>> made;
  for (size_t i = 0; i < count; ++i) made.emplace_back(name_of(i), "/adapters/" + std::to_string(i));
  return made;
}

class Workload {
 public:
  Workload(size_t names, size_t wanted, int32_t staged_count)
      : tables_({staged_count, kBytes * static_cast<uint64_t>(staged_count)}, kSlots, modules(names)) {
    std::mt19937 random(1);
    for (size_t i = 0; i < names; ++i) order_.push_back(i);
    std::shuffle(order_.begin(), order_.end(), random);
    order_.resize(wanted);
    tables_.group_formed();
    for (size_t i = 0; i < 2 * std::max(wanted, kLive); ++i) request();
  }

  // One request comes, one that has a slot ends.
  void request() {
    const engine::SequenceId id(++requests_);
    const size_t index = order_[requests_ % order_.size()];
    tables_.resolve(id, name_of(index));
    act();
    if (leased_.size() + acquiring_ > kLive) end();
  }

  size_t reads() const { return reads_; }
  size_t sends() const { return sends_; }

 private:
  void end() {
    const auto [id, digest] = leased_.front();
    leased_.pop_front();
    tables_.release(id, digest);
    tables_.unclaim(id);
    act();
  }

  void act() {
    for (auto effects = tables_.take_effects(); !effects.empty(); effects = tables_.take_effects()) {
      for (auto& effect : effects) std::visit([this](auto& wanted) { perform(wanted); }, effect);
    }
  }

  size_t index_of(const std::string& name) const { return std::stoul(name.substr(name.rfind('-') + 1)); }

  void perform(HostAdapters::Check& check) { tables_.checked(check.name, stamp(1)); }
  void perform(HostAdapters::Read& read) {
    ++reads_;
    // As long as a real one.
    tables_.read(read.name, stamp(1), staged(fmt::format("{:064x}", index_of(read.name)), kBytes));
  }
  void perform(HostAdapters::Cancel&) {}
  void perform(HostAdapters::Resolved& resolved) {
    ++acquiring_;
    digest_of_[resolved.id.value() % digest_of_.size()] = resolved.digest;
    tables_.acquire(resolved.id, resolved.digest);
  }
  void perform(AdapterSlots::Send& send) {
    ++sends_;
    tables_.sent(send.adapter->digest, "");
  }
  void perform(AdapterSlots::Clear&) {}
  void perform(AdapterSlots::Acquired& acquired) {
    --acquiring_;
    leased_.emplace_back(acquired.id, digest_of_[acquired.id.value() % digest_of_.size()]);
  }

  AdapterTables tables_;
  std::vector<size_t> order_;                                                 // in which the names are wanted
  std::vector<std::string> digest_of_ = std::vector<std::string>(4 * kLive);  // live requests, by their id
  std::deque<std::pair<engine::SequenceId, std::string>> leased_;
  size_t acquiring_ = 0;
  uint64_t requests_ = 0;
  size_t reads_ = 0, sends_ = 0;
};

void measure(benchmark::State& state, size_t wanted, int32_t staged_count) {
  const auto names = static_cast<size_t>(state.range(0));
  Workload workload(names, std::min(names, wanted), staged_count);
  const size_t reads = workload.reads(), sends = workload.sends();
  for (auto _ : state) workload.request();
  const auto per_request = [](size_t count) {
    return benchmark::Counter(static_cast<double>(count), benchmark::Counter::kAvgIterations);
  };
  state.counters["reads"] = per_request(workload.reads() - reads);
  state.counters["sends"] = per_request(workload.sends() - sends);
}

void few(benchmark::State& state) {
  measure(state, kSlots, static_cast<int32_t>(state.range(0)));
}
void all(benchmark::State& state) {
  measure(state, static_cast<size_t>(state.range(0)), static_cast<int32_t>(state.range(0)));
}
void cold(benchmark::State& state) {
  measure(state, static_cast<size_t>(state.range(0)), kStaged);
}

BENCHMARK(few)->Arg(100)->Arg(10'000)->Arg(100'000);
BENCHMARK(all)->Arg(100)->Arg(10'000)->Arg(100'000);
BENCHMARK(cold)->Arg(100)->Arg(10'000)->Arg(100'000);

}  // namespace
}  // namespace lorikeet::actors
