// Which adapters are in the slots of one group of ranks. No threads and no ranks in here: events go in, effects come out.
// Which adapters there are at all, and their host copies: actors/head/host_adapters.h.
//
// Per content:
//
//   none --> waiting --> sending --> resident --> none (in the order of actors/head/eviction_order.h; never while leased)
//               ^           |`--> none (a rank refused it: rolled back on all of them)
//               |           | the group is lost, or was while it was resident
//               `-------- former --> none (as if it were resident)
//
// The ranks that survive a group keep what their slots hold. So its contents keep their slots, too, and their bytes; when
// one is wanted again the ranks are asked first whether they have it there (Send::confirms), and who lacks it gets it.
//
// A lease is a request's hold on a slot while plans may touch it. While contents wait for slots and none can be had, some
// resident ones give way: they get no new leases and drain, and the engine is told, so that requests that have had a turn
// there go back to the queue. Otherwise a stream of requests for resident adapters would keep another one out for ever.
// No more contents give way than can be sent to the ranks at a time (kMostSends): all other slots go on serving.
//
// A content that is kept stays in its slot once it has one, and gives way to nobody; at least one slot has none.
//
// Nothing on a request's path walks over contents or slots. Not for use by two threads at once.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "actors/head/eviction_order.h"
#include "actors/head/frequency_sketch.h"
#include "actors/head/record_list.h"
#include "actors/head/staged_adapter.h"
#include "engine/ids.h"

namespace lorikeet::actors {

class AdapterSlots {
 public:
  using Id = engine::SequenceId;
  static constexpr size_t kMostSends = 4;  // under way at a time
  struct Limits {
    int32_t count = 1;   // slots of each rank
    uint64_t bytes = 0;  // of what is in them, on each rank; 0: no limit
    int32_t ranks = 1;
  };

  // What is to be done, in order.
  struct Send {  // to all ranks: sent() follows
    uint64_t transfer = 0;
    int32_t slot = 0;
    std::shared_ptr<const StagedAdapter> adapter;
    bool confirms = false;  // all ranks of an earlier group had it in that slot: some may have it still
  };
  struct
      Clear {  // on all ranks: what the transfer has brought; it failed, or its bytes are for others. 0: whatever is there
    uint64_t transfer = 0;
    int32_t slot = 0;
    std::string digest;
  };
  struct Acquired {  // the answer to acquire()
    Id id;
    engine::SlotId slot;
    std::string error;
    bool ranks_failed = false;  // the error is not the adapter's
  };
  struct Pin {  // keep the content in the host's memory
    std::string digest;
  };
  struct Unpin {
    std::string digest;
  };
  struct GiveWay {  // tell the engine: requests that run on it are to give their leases back after a turn, or no more
    std::string digest;
    bool wanted = false;
  };
  using Effect = std::variant<Send, Clear, Acquired, Pin, Unpin, GiveWay>;

  explicit AdapterSlots(Limits limits);
  explicit AdapterSlots(int32_t slots) : AdapterSlots(Limits{slots}) {}
  AdapterSlots(const AdapterSlots&) = delete;
  AdapterSlots& operator=(const AdapterSlots&) = delete;

  // claimed(): a request that has claimed the content will want it in a slot. unclaimed(): that request has ended. Among
  // contents that nobody leases, those that no request has claimed lose their slots first.
  void claimed(const std::string& digest);
  void unclaimed(const std::string& digest);

  // acquire(): a request wants the content in a slot; `staged` is null where the host has no copy. release(): it needs the
  // slot no more; unknown ids are fine.
  void acquire(Id id, const std::string& digest, std::shared_ptr<const StagedAdapter> staged);
  void release(Id id, const std::string& digest);
  // error empty: resident on all ranks. ranks_failed: the error is not the adapter's.
  void sent(const std::string& digest, const std::string& error, bool ranks_failed = false);
  void drop(const std::string& digest);  // no request will want it; nobody holds it

  // kept: once the content is in a slot it stays there until keep(digest, false). The caller makes sure that at least one
  // slot and half of the bytes (may_keep) are left to others. `staged` tells its size; null: the size that is known here.
  void keep(const std::string& digest, bool kept, const StagedAdapter* staged = nullptr);
  // Whether half of the bytes are left to others when this one is kept, too.
  bool may_keep(const std::string& digest, const StagedAdapter* staged) const;
  // Whether acquire() would be answered without another content giving way that is leased.
  bool has_slot_for(const std::string& digest, const StagedAdapter* staged = nullptr) const;

  int32_t size() const { return limits_.count; }
  uint64_t budget_bytes() const { return limits_.bytes; }
  uint64_t used_bytes() const { return used_bytes_; }  // on each rank
  size_t used() const;                                 // slots
  uint64_t evictions() const { return evictions_; }    // so far
  bool is_resident(const std::string& digest) const;
  std::vector<std::string> resident() const;  // digests; as many as there are slots at the most

  // group_formed(): ranks are there; those of the last group have what they had in their slots, others empty ones.
  // group_lost(): they are gone.
  void group_formed();
  void group_lost();

  std::vector<Effect> take_effects() { return std::exchange(effects_, {}); }

  struct Row {  // of the status
    std::string state = "none", error;
    int32_t slot = -1;
    size_t leases = 0;
  };
  Row row(const std::string& digest) const;

 private:
  enum class State : uint8_t { none, waiting, sending, resident, former };
  // Where a resident or former content is listed. idle: no lease, no claim; claimed: no lease, but a request has claimed
  // it; leased; draining: it gives way.
  enum class Place : uint8_t { none, idle, claimed, leased, draining };
  struct Content;
  using Key = std::tuple<size_t, uint64_t, Content*>;  // leases, last used
  using Index = std::set<Key>;
  struct Content {
    const std::string* digest = nullptr;  // the key
    State state = State::none;
    int32_t slot = -1;
    uint64_t bytes = 0;         // that it takes of each rank while it is in a slot
    uint64_t transfer = 0;      // that brings or brought it to the ranks
    bool draining = false;      // resident, and to give its slot to one that waits
    bool was_resident = false;  // since it has its slot
    bool kept = false;
    uint64_t kept_bytes = 0;  // that it takes or will take, as far as known; among promised_bytes_ while it is kept
    std::set<Id> leases;      // requests that have the slot
    std::set<Id> waiters;     // requests that have not got it yet
    size_t claims = 0;
    uint64_t last_used = 0;
    uint64_t ticket = 0;        // of its queue, while it waits
    Place place = Place::none;  // where it is found
    Key key;                    // there, where it is an Index
    ListLinks<Content> links;   // and these where it is an order
    EvictionState eviction;
    bool counts_as_kept = false;                  // its bytes are among kept_bytes_
    bool pinned = false;                          // as the host was told
    std::shared_ptr<const StagedAdapter> staged;  // while pinned
    std::string error;                            // of the last way to the ranks
  };
  using Order = EvictionOrder<Content, &Content::links, &Content::eviction>;

  Content& find_or_add(const std::string& digest);
  void queue(Content& content);
  std::map<uint64_t, Content*>& queue_of(const Content& content) { return content.slot < 0 ? queue_ : returning_; }
  void assign_slots();
  uint64_t bytes_of(const StagedAdapter& adapter) const;
  void leave_queue(Content& content);
  void enter_slot(Content& content, int32_t slot, uint64_t bytes);
  void send(Content& content);
  void leave_slot(Content& content);
  void empty_slot(Content& content);
  std::string why_it_never_fits(uint64_t bytes) const;
  std::optional<int32_t> make_place(uint64_t bytes);
  Content* next_victim() const;
  void evict(Content& content);
  bool first_lacks_bytes(uint64_t spared) const;
  void choose_draining();
  void set_draining(Content& content, bool draining);
  void grant(Content& content);
  void fail_waiters(Content& content, const std::string& error, bool ranks_failed);
  static bool is_evictable(const Content& content);
  static bool is_leaving(const Content& content);
  void find(Content& content, Place place);
  void update(Content& content);

  FrequencySketch uses_;                               // claims, by digest
  std::unordered_map<std::string, Content> contents_;  // claimed, in a slot, on their way to one, or with an error
  std::set<int32_t> free_slots_;
  // Only where bytes are counted: slots whose content is not known, since some rank may not have carried out the last
  // order for it. They are emptied when a group begins.
  std::set<int32_t> unsure_;
  // At first all slots: ranks may hold what an earlier head has sent.
  std::set<int32_t> unknown_;
  std::vector<Content*> in_slots_;          // by slot; null: empty
  std::map<uint64_t, Content*> queue_;      // that wait for a slot, by ticket
  std::map<uint64_t, Content*> returning_;  // that wait and have kept theirs: they go first, since they need no place
  Order idle_, claimed_;                    // resident or former, and nobody leases them
  Index leased_;                            // resident, and take new leases
  Index draining_;                          // resident, and take none
  size_t sending_ = 0;                      // contents
  const Limits limits_;
  uint64_t used_bytes_ = 0;       // on each rank, of what is in slots
  uint64_t evictable_bytes_ = 0;  // of it: of what nobody leases
  uint64_t leaving_bytes_ = 0;    // of it: of what gives way and is leased still
  uint64_t kept_bytes_ = 0;       // of it: of what is kept
  uint64_t promised_bytes_ = 0;   // of all that is kept, wherever it is
  uint64_t evictions_ = 0;
  bool group_ = false;
  uint64_t clock_ = 0;
  uint64_t tickets_ = 0;
  uint64_t transfers_ = 0;
  std::vector<Effect> effects_;
};

}  // namespace lorikeet::actors
