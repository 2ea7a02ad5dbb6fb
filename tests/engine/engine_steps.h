// Tables of steps: what is done, the plan that follows, and how the engine then stands.
#pragma once

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <numeric>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "tests/engine/engine_harness.h"

namespace lorikeet::engine {

using testing::Client;
using testing::EngineHarness;

// "-2 +3 1[4,5)* 3[0,4)": drop 2, start 3, compute position 4 of sequence 1 and draw a token, compute 0 to 3 of 3.
inline std::string describe(const StepPlan& plan) {
  std::string text;
  for (const SequenceId id : plan.finished) text += fmt::format("-{} ", id.value());
  for (const SequenceStart& start : plan.starts) text += fmt::format("+{} ", start.id.value());
  for (const StepRow& row : plan.rows) {
    text += fmt::format("{}[{},{}){} ", row.id.value(), row.start, row.start + row.count, row.sample ? "*" : "");
  }
  text.pop_back();
  return text;
}

inline std::vector<int32_t> count_to(int32_t end) {
  std::vector<int32_t> tokens(static_cast<size_t>(end));
  std::iota(tokens.begin(), tokens.end(), 1);
  return tokens;
}

inline EngineConfig small_config() {
  EngineConfig config;
  config.block_size = 4;
  config.num_blocks = 20;
  config.max_num_seqs = 4;
  config.max_num_batched_tokens = 16;
  config.max_model_len = 200;
  config.max_plans_in_flight = 1;
  return config;
}

struct Step {
  std::string plan;                                                  // empty: none
  int32_t waiting = 0, running = 0, preempted = 0, blocks_free = 0;  // with the plan in flight
};

// Makes a plan, looks, and absorbs the oldest result; step after step.
inline void expect_steps(EngineHarness& server, const std::vector<Step>& steps) {
  for (size_t i = 0; i < steps.size(); ++i) {
    SCOPED_TRACE(fmt::format("step {}", i + 1));
    server.grant_leases();
    const bool planned = server.plan();
    EXPECT_EQ(planned ? describe(server.in_flight.back()) : "", steps[i].plan);
    const EngineStats stats = server.engine.stats();
    EXPECT_EQ(stats.waiting, steps[i].waiting);
    EXPECT_EQ(stats.running, steps[i].running);
    EXPECT_EQ(stats.preempted, steps[i].preempted);
    EXPECT_EQ(stats.blocks_free, steps[i].blocks_free);
    if (static_cast<int32_t>(server.in_flight.size()) == server.config.max_plans_in_flight || !planned) server.absorb();
  }
}

}  // namespace lorikeet::engine
