// The state of a running server as one value, from which all that shows it is made: the JSON that clients get
// (comm/codec/json_codec.h; its keys are the fields' names, comm/PROTOCOL.md explains them), the table of `lorikeet
// status`, metrics. Its parts are taken by their owners, one after the other, so they are not of one instant.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "actors/wire/step_totals.h"
#include "actors/wire/time_histogram.h"
#include "engine/engine.h"

namespace lorikeet::actors {

struct ProcessStatus {
  int32_t pid = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("pid", s.pid);
  }
};

// Requests that the engine does not have yet.
struct QueueStatus {
  uint64_t held = 0;
  uint64_t reading_adapters = 0;  // of them: whose adapter is being read
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("held", s.held);
    visit("reading_adapters", s.reading_adapters);
  }
};

struct EngineStatus {
  engine::EngineStats stats;      // zeros until the ranks have loaded for the first time
  uint64_t plans_sent_ahead = 0;  // sent before the plan in front of them was answered
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    engine::EngineStats::fields(s.stats, visit);
    visit("plans_sent_ahead", s.plans_sent_ahead);
  }
};

struct RankStatus {
  int32_t rank = 0;
  std::string state;  // absent, loading, loaded, ready, lost
  int32_t pid = 0;
  uint64_t epoch = 0;
  std::string host;
  std::string device;
  uint64_t weight_bytes = 0;
  uint64_t kv_block_bytes = 0;
  int32_t kv_blocks = 0;           // that it can hold
  uint64_t weight_bytes_read = 0;  // from files, when its process started; 0: its predecessor had left them
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("rank", s.rank);
    visit("state", s.state);
    visit("pid", s.pid);
    visit("epoch", s.epoch);
    visit("host", s.host);
    visit("device", s.device);
    visit("weight_bytes", s.weight_bytes);
    visit("kv_block_bytes", s.kv_block_bytes);
    visit("kv_blocks", s.kv_blocks);
    visit("weight_bytes_read", s.weight_bytes_read);
  }
};

// One pause of all streams, from the group's last word to the next token. Times in microseconds.
struct PauseStatus {
  uint64_t epoch = 0;  // that was lost last
  std::string why;
  bool by_rank = false;         // a rank failed by itself: it was not killed, stopped or cut off
  uint32_t losses = 0;          // 1, or more where the group was lost again before it served
  uint64_t detect_us = 0;       // until the loss was noticed
  uint64_t fence_us = 0;        // until no rank of the lost epoch computed any more
  uint64_t start_us = 0;        // until all ranks had their weights
  uint64_t join_us = 0;         // until they had met
  uint64_t first_token_us = 0;  // until a result came
  uint64_t again_us = 0;        // spent in attempts that were lost again
  uint64_t total_us = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("epoch", s.epoch);
    visit("why", s.why);
    visit("by_rank", s.by_rank);
    visit("losses", s.losses);
    visit("detect_us", s.detect_us);
    visit("fence_us", s.fence_us);
    visit("start_us", s.start_us);
    visit("join_us", s.join_us);
    visit("first_token_us", s.first_token_us);
    visit("again_us", s.again_us);
    visit("total_us", s.total_us);
  }
};
struct PauseTotals {
  uint64_t losses = 0;          // of the group
  uint64_t losses_by_rank = 0;  // of them
  uint64_t ended = 0;           // pauses
  uint64_t total_us = 0;        // of those
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("losses", s.losses);
    visit("losses_by_rank", s.losses_by_rank);
    visit("ended", s.ended);
    visit("total_us", s.total_us);
  }
};

// What the scheduler knows.
struct ServingStatus {
  std::string zmq;  // the clients' address; empty: not open yet
  bool serving = false;
  int64_t kv_cache_tokens = 0;
  uint64_t epoch = 0;
  ProcessStatus head;
  QueueStatus queues;
  EngineStatus engine;
  StepTotals steps;
  std::vector<RankStatus> ranks;
  PauseTotals pauses;
  std::vector<PauseStatus> last_pauses;  // the latest last
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("zmq", s.zmq);
    visit("serving", s.serving);
    visit("kv_cache_tokens", s.kv_cache_tokens);
    visit("epoch", s.epoch);
    visit("head", s.head);
    visit("queues", s.queues);
    visit("engine", s.engine);
    visit("steps", s.steps);
    visit("ranks", s.ranks);
    visit("pauses", s.pauses);
    visit("last_pauses", s.last_pauses);
  }
};

// One name, or a replaced content that a request still holds.
struct AdapterStatus {
  std::string name;
  std::string digest;  // of its content; empty: not read yet
  std::string host;    // the tier of the host's copy: on_disk, reading, waiting_for_memory, staged, replaced, loading
  std::string slot_state;  // none, waiting, sending, resident
  std::optional<int32_t> slot;
  uint64_t leases = 0;  // requests that the engine runs on it
  uint64_t claims = 0;  // requests that want it
  int32_t rank = 0;     // the largest of its modules
  uint64_t bytes = 0;   // of its slices
  std::string directory;
  std::optional<std::string> error;  // of its files, its last way to the ranks, or why it is set aside
  bool pinned = false;
  bool set_aside = false;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("name", s.name);
    visit("digest", s.digest);
    visit("host", s.host);
    visit("slot_state", s.slot_state);
    visit("slot", s.slot);
    visit("leases", s.leases);
    visit("claims", s.claims);
    visit("rank", s.rank);
    visit("bytes", s.bytes);
    visit("directory", s.directory);
    visit("error", s.error);
    visit("pinned", s.pinned);
    visit("set_aside", s.set_aside);
  }
};

// How often something was done, and how long it took.
struct Durations {
  TimeHistogram histogram;
  uint64_t ns = 0;  // of all together
  void add(uint64_t more_ns) {
    histogram.add(more_ns);
    ns += more_ns;
  }
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("histogram", s.histogram);
    visit("ns", s.ns);
  }
};

// How often requests found their adapter where it was looked for, since the start.
struct AdapterLookups {
  uint64_t lookups = 0;                      // requests with an adapter
  uint64_t host_hits = 0;                    // of them: it was in the head's memory
  uint64_t slot_lookups = 0, slot_hits = 0;  // those that asked for a slot; it was in one of all ranks
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("lookups", s.lookups);
    visit("host_hits", s.host_hits);
    visit("slot_lookups", s.slot_lookups);
    visit("slot_hits", s.slot_hits);
  }
};

// One of the places where adapters are kept.
struct AdapterTier {
  uint64_t adapters = 0;          // in it
  uint64_t most = 0;              // that may be in it; 0: as many as its bytes allow
  uint64_t bytes = 0;             // of them; of slots: on each rank
  uint64_t budget_bytes = 0;      // that it may take; 0: no limit but that of `most`
  uint64_t hits = 0, misses = 0;  // of requests that looked for their adapter, since the start
  uint64_t evictions = 0;         // to make room for others, since the start
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("adapters", s.adapters);
    visit("most", s.most);
    visit("bytes", s.bytes);
    visit("budget_bytes", s.budget_bytes);
    visit("hits", s.hits);
    visit("misses", s.misses);
    visit("evictions", s.evictions);
  }
};
struct AdapterTiers {
  AdapterTier slots, host;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("slots", s.slots);
    visit("host", s.host);
  }
};

// What the adapter cache knows.
struct AdaptersStatus {
  uint64_t transfers = 0;     // adapters on their way to the ranks
  uint64_t staged_bytes = 0;  // of all adapters in the head's memory
  uint64_t blocked = 0;       // adapters whose disk has not answered in time, and still does not
  AdapterLookups lookups;
  AdapterTiers tiers;
  Durations reads;  // of adapters from disk into the head's memory
  Durations sends;  // of adapters from there to all ranks
  std::vector<AdapterStatus> adapters;
  uint64_t unlisted = 0;  // more of them, whose weights are on disk alone: a brief status does not list them
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("adapter_transfers", s.transfers);
    visit("staged_adapter_bytes", s.staged_bytes);
    visit("blocked_adapters", s.blocked);
    visit("adapter_lookups", s.lookups);
    visit("adapter_tiers", s.tiers);
    visit("adapter_reads", s.reads);
    visit("adapter_sends", s.sends);
    visit("adapters", s.adapters);
    visit("unlisted_adapters", s.unlisted);
  }
};

// What the gateway knows, together with the fields of the others' parts.
struct ServerStatus {
  std::string model;          // the name that it is served under
  int32_t max_model_len = 0;  // positions of a sequence
  int32_t vocab_size = 0;     // token ids are below it
  uint64_t live_requests = 0;
  ProcessStatus supervisor;
  ServingStatus serving;
  AdaptersStatus adapters;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("model", s.model);
    visit("max_model_len", s.max_model_len);
    visit("vocab_size", s.vocab_size);
    visit("live_requests", s.live_requests);
    visit("supervisor", s.supervisor);
    ServingStatus::fields(s.serving, visit);
    AdaptersStatus::fields(s.adapters, visit);
  }
};

}  // namespace lorikeet::actors
