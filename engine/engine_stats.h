// The engine's state and counters, for the server's status.
#pragma once

#include <cstdint>

namespace lorikeet::engine {

struct EngineStats {
  int32_t waiting = 0, running = 0, preempted = 0;
  int32_t blocks_total = 0, blocks_free = 0;  // free: in no sequence's table (cached content may still be in them)
  uint64_t plans = 0, preemptions = 0, prefix_hit_tokens = 0, prompt_tokens = 0, generated_tokens = 0;
  int32_t plans_in_flight = 0, max_plans_in_flight_seen = 0;
  int32_t max_adapters_in_a_plan = 0;  // distinct, the base model not counted
  int32_t set_aside = 0;               // waiting or preempted, to be computed alone when the others have ended
  uint64_t resumptions = 0;            // sequences that ran when the ranks were lost, and were put back
  int32_t kept = 0;                    // preempted ones that will go on where they stopped
  uint64_t recomputed_tokens = 0;      // positions of preempted and resumed sequences that are computed once more
  uint64_t turns = 0;                  // sequences put back because others waited for their adapter's slot

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("waiting", s.waiting);
    visit("running", s.running);
    visit("preempted", s.preempted);
    visit("blocks_total", s.blocks_total);
    visit("blocks_free", s.blocks_free);
    visit("plans", s.plans);
    visit("preemptions", s.preemptions);
    visit("prefix_hit_tokens", s.prefix_hit_tokens);
    visit("prompt_tokens", s.prompt_tokens);
    visit("generated_tokens", s.generated_tokens);
    visit("plans_in_flight", s.plans_in_flight);
    visit("max_plans_in_flight_seen", s.max_plans_in_flight_seen);
    visit("max_adapters_in_a_plan", s.max_adapters_in_a_plan);
    visit("set_aside", s.set_aside);
    visit("resumptions", s.resumptions);
    visit("kept", s.kept);
    visit("recomputed_tokens", s.recomputed_tokens);
    visit("turns", s.turns);
  }
};

}  // namespace lorikeet::engine
