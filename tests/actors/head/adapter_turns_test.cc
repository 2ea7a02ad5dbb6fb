// What many adapters in few slots cost: serving core, engine and the adapters' tables as the head has them, with a rank
// whose steps and a way to it whose loads take times that are given here. Time is virtual, so that the figures are the
// same on every machine.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "actors/head/serving_core.h"
#include "tests/actors/head/adapter_tables.h"
#include "tests/actors/head/staged_adapters.h"

namespace lorikeet::actors {
namespace {

using std::chrono::microseconds;

// About one H200 with Qwen2.5-14B in int4 and adapters of rank 16 on all projections; in microseconds.
struct Machine {
  int32_t slots = 32;
  int64_t step = 2700, row = 75, prompt_token = 45;
  int64_t adapter = 100;   // in a step, each distinct one
  int64_t send = 10'000;   // one behind the other
  int64_t read = 40'000;   // side by side
  int32_t host_count = 0;  // adapters in the head's memory; 0: all
  int32_t num_blocks = 8192;
};

struct Asked {
  std::string adapter;
  int32_t output_len = 64;
};

class Simulation {
 public:
  using Id = engine::SequenceId;

  Simulation(const Machine& machine, int32_t names)
      : machine_(machine),
        core_(config_of(machine)),
        tables_({machine.host_count, 1'000'000}, machine.slots, modules(names)) {
    EXPECT_TRUE(core_.admit(0, 1, 1, "host", "simulated"));
    core_.loaded(0, {machine.num_blocks, 1, 1}, now_);
    core_.ready(0, now_);
    act();
  }

  // Sends the requests, so many at a time, until all are answered.
  void run(const std::vector<Asked>& asked, size_t at_a_time) {
    next_ = asked.begin();
    end_ = asked.end();
    for (size_t i = 0; i < at_a_time; ++i) submit_next();
    act();
    while (!events_.empty()) {
      auto event = events_.extract(events_.begin());
      now_ = ServingCore::TimePoint(microseconds(event.key()));
      event.mapped()();
      act();
    }
    EXPECT_EQ(finished_, asked.size());
  }

  double seconds() const { return 1e-6 * static_cast<double>(us()); }
  double tokens_per_second() const { return static_cast<double>(tokens_) / seconds(); }
  double longest_wait() const { return 1e-6 * static_cast<double>(longest_wait_); }  // until a first token
  size_t sends() const { return sends_; }
  size_t reads() const { return reads_; }
  size_t failures() const { return failures_; }
  engine::EngineStats stats() const { return *core_.engine_stats(); }
  const AdapterTables& tables() const { return tables_; }

  std::string refused;  // an adapter that the rank does not take

 private:
  static ServingCore::Config config_of(const Machine& machine) {
    ServingCore::Config config;
    config.engine.max_model_len = 1024;
    config.engine.num_blocks = machine.num_blocks;
    config.vocab_size = 10;
    return config;
  }

  static std::vector<std::pair<std::string, std::string>> modules(int32_t names) {
    std::vector<std::pair<std::string, std::string>> made;
    for (int32_t i = 0; i < names; ++i) made.emplace_back(std::to_string(i), "/" + std::to_string(i));
    return made;
  }

  int64_t us() const { return std::chrono::duration_cast<microseconds>(now_.time_since_epoch()).count(); }
  void after(int64_t at, std::function<void()> what) { events_.emplace(at, std::move(what)); }

  void submit_next() {
    if (next_ == end_) return;
    auto request = std::make_shared<engine::Request>();
    request->id = Id(++last_id_);
    // No two share a prefix.
    request->prompt.assign(256, static_cast<int32_t>(last_id_ % 10));
    for (size_t i = 0; i < 8; ++i) request->prompt[i] = static_cast<int32_t>(last_id_ >> (3 * i) & 7);
    request->adapter = next_->adapter;
    request->sampling.max_tokens = next_->output_len;
    sent_at_[request->id] = us();
    ++next_;
    core_.submit(std::move(request), now_);
  }

  void act() {
    for (bool more = true; more;) {
      more = false;
      for (auto& effect : core_.take_effects()) {
        std::visit([this](auto& wanted) { perform(wanted); }, effect);
        more = true;
      }
      for (auto& effect : tables_.take_effects()) {
        std::visit([this](auto& wanted) { perform(wanted); }, effect);
        more = true;
      }
      for (const auto& way : tables_.take_ways()) {
        core_.give_way(1, way.digest, way.wanted, now_);
        more = true;
      }
    }
  }

  // ---- what the core wants

  void perform(ServingCore::FormGroup&) {}
  void perform(ServingCore::GroupServes&) { tables_.group_formed(); }
  void perform(ServingCore::GroupLost& lost) { ADD_FAILURE() << lost.loss.why; }
  void perform(ServingCore::SendToRanks&) {}
  void perform(ServingCore::Resolve& ask) { tables_.resolve(ask.id, ask.name); }
  void perform(ServingCore::Unclaim& over) { tables_.unclaim(over.id, over.outcome); }
  void perform(ServingCore::Acquire& ask) {
    digest_of_[ask.id] = ask.digest;
    tables_.acquire(ask.id, ask.digest);
  }
  void perform(ServingCore::Release& over) { tables_.release(over.id, over.digest); }

  void perform(ServingCore::SendPlan& send) {
    int64_t cost = machine_.step;
    std::set<std::string> adapters;
    engine::StepResult result;
    result.epoch = send.plan.epoch;
    result.step = send.plan.step;
    for (const engine::StepRow& row : send.plan.rows) {
      cost += row.count > 1 ? machine_.prompt_token * row.count : machine_.row;
      if (const auto it = digest_of_.find(row.id); it != digest_of_.end()) adapters.insert(it->second);
      engine::RowResult& answer = result.rows.emplace_back();
      answer.id = row.id;
      answer.token_id = row.sample ? 1 : engine::kNoToken;
    }
    cost += machine_.adapter * static_cast<int64_t>(adapters.size());
    device_free_ = std::max(device_free_, us()) + cost;
    after(device_free_, [this, result] { core_.result(0, result, now_); });
  }

  void perform(ServingCore::Events& events) {
    for (const engine::Event& event : events.events) {
      if (const auto* token = std::get_if<engine::TokenEvent>(&event)) {
        ++tokens_;
        const auto first = sent_at_.find(token->id);
        if (first == sent_at_.end()) continue;
        longest_wait_ = std::max(longest_wait_, us() - first->second);
        sent_at_.erase(first);
      } else {
        failures_ += std::holds_alternative<engine::Boxed<engine::FailEvent>>(event) ? 1 : 0;
        ++finished_;
        submit_next();
      }
    }
  }

  // ---- what the tables want

  void perform(HostAdapters::Check& check) { tables_.checked(check.name, stamp(1)); }
  void perform(HostAdapters::Read& read) {
    ++reads_;
    after(us() + machine_.read,
          [this, name = read.name] { tables_.read(name, stamp(1), staged("digest " + name, 1)); });
  }
  void perform(HostAdapters::Cancel&) {}
  void perform(HostAdapters::Resolved& resolved) { core_.resolved(resolved.id, resolved.digest, resolved.error, now_); }
  void perform(AdapterSlots::Send& send) {
    ++sends_;
    link_free_ = std::max(link_free_, us()) + machine_.send;
    const std::string error = send.adapter->digest == "digest " + refused ? "the rank refuses it" : "";
    after(link_free_, [this, digest = send.adapter->digest, error] { tables_.sent(digest, error); });
  }
  void perform(AdapterSlots::Clear&) {}
  void perform(AdapterSlots::Acquired& acquired) {
    core_.acquired({acquired.id, digest_of_.at(acquired.id)}, 1, acquired.slot, acquired.error, false, now_);
  }

  const Machine machine_;
  ServingCore core_;
  AdapterTables tables_;
  ServingCore::TimePoint now_;
  std::multimap<int64_t, std::function<void()>> events_;
  std::vector<Asked>::const_iterator next_, end_;
  std::map<Id, std::string> digest_of_;
  std::map<Id, int64_t> sent_at_;  // requests that have no token yet
  uint64_t last_id_ = 0;
  int64_t device_free_ = 0, link_free_ = 0;
  int64_t tokens_ = 0, longest_wait_ = 0;
  size_t finished_ = 0, failures_ = 0, sends_ = 0, reads_ = 0;
};

std::vector<Asked> round_robin(size_t requests, int32_t names, int32_t output_len) {
  std::vector<Asked> asked;
  for (size_t i = 0; i < requests; ++i) {
    asked.push_back({std::to_string(i % static_cast<size_t>(names)), output_len});
  }
  return asked;
}

std::vector<Asked> zipf(size_t requests, int32_t names, int32_t output_len) {
  std::vector<double> weights;
  for (int32_t i = 1; i <= names; ++i) weights.push_back(1.0 / i);
  std::mt19937 random(7);
  std::discrete_distribution<int32_t> draw(weights.begin(), weights.end());
  std::vector<Asked> asked;
  for (size_t i = 0; i < requests; ++i) asked.push_back({std::to_string(draw(random)), output_len});
  return asked;
}

struct Result {
  double tokens_per_second = 0, longest_wait = 0;
  size_t sends = 0, reads = 0;
  uint64_t turns = 0;
};

Result run(const Machine& machine, int32_t names, const std::vector<Asked>& asked, size_t at_a_time = 64) {
  Simulation simulation(machine, names);
  simulation.run(asked, at_a_time);
  EXPECT_EQ(simulation.failures(), 0u);
  const engine::EngineStats stats = simulation.stats();
  EXPECT_EQ(stats.waiting + stats.running + stats.preempted, 0);
  EXPECT_EQ(stats.blocks_free, stats.blocks_total);
  EXPECT_EQ(stats.preemptions, 0u);
  return {simulation.tokens_per_second(), simulation.longest_wait(), simulation.sends(), simulation.reads(),
          stats.turns};
}

// Goal: 0.9. What is lost is mostly that a step has 48 rows of the 64 that there would be.
TEST(AdapterTurns, HideTheSwapsBehindTheSteps) {
  struct Row {
    int64_t send;
    size_t requests;
    int32_t output_len;
  };
  for (const auto& [send, requests, output_len] :
       {Row{3'000, 64, 64}, Row{10'000, 64, 128}, Row{10'000, 192, 64}, Row{30'000, 192, 64}}) {
    SCOPED_TRACE(std::to_string(requests) + " requests of " + std::to_string(output_len) + " tokens, a load takes " +
                 std::to_string(send) + " us");
    Machine machine;
    machine.send = send;
    const auto asked = round_robin(requests, 32, output_len);
    const Result in_32 = run(machine, 32, asked);
    machine.slots = 24;
    const Result in_24 = run(machine, 32, asked);
    EXPECT_EQ(in_32.turns, 0u);
    EXPECT_EQ(in_32.sends, 32u) << "one load for all requests of an adapter";
    EXPECT_GT(in_24.turns, 0u);
    EXPECT_GE(in_24.tokens_per_second, 0.9 * in_32.tokens_per_second);
  }
}

TEST(AdapterTurns, LetNobodyWaitForTheEndOfLongAnswers) {
  Machine machine;
  machine.slots = 4;
  const Result result = run(machine, 8, round_robin(8, 8, 512), 8);
  // 512 tokens of four adapters take 1.8 s.
  EXPECT_LT(result.longest_wait, 0.6);
  EXPECT_GT(result.turns, 8u);
}

// 1,000 adapters for q and v alone, of a fifth of the size, in as many slots as fit 8 GB. Goal: 0.85 of the same load over
// 32 that stay.
TEST(AdapterTurns, KeepAThousandAdaptersByZipfsLawCloseToThirtyTwo) {
  Machine machine;
  machine.slots = 320;
  machine.adapter = 20;
  machine.send = 2'000;
  machine.read = 8'000;
  const Result few = run(machine, 32, zipf(400, 32, 64));
  const Result many = run(machine, 1'000, zipf(400, 1'000, 64));
  EXPECT_EQ(many.turns, 0u) << "64 at a time have slots enough";
  EXPECT_GT(many.sends, 100u);
  EXPECT_GE(many.tokens_per_second, 0.85 * few.tokens_per_second);
}

TEST(AdapterTurns, TellTheRequestsOfAnAdapterThatARankRefusesAndServeTheOthers) {
  Machine machine;
  machine.slots = 4;
  Simulation simulation(machine, 8);
  simulation.refused = "5";
  simulation.run(round_robin(32, 8, 48), 16);
  EXPECT_EQ(simulation.failures(), 4u);
  for (const AdapterTables::Row& row : simulation.tables().rows()) {
    EXPECT_EQ(row.leases + row.claims, 0u) << row.name;
    EXPECT_EQ(row.error, row.name == "5" ? "the rank refuses it" : "");
  }
}

TEST(AdapterTurns, ReadAgainWhatTheHeadsMemoryDoesNotHold) {
  Machine machine;
  machine.slots = 8;
  machine.host_count = 12;
  const Result result = run(machine, 24, round_robin(96, 24, 40), 8);
  EXPECT_GT(result.reads, 24u);
}

}  // namespace
}  // namespace lorikeet::actors
