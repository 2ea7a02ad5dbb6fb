// Which adapters are on the ranks of one group, without threads or ranks: events go in, effects come out. Which there
// are at all, and their host copies: actors/head/host_adapters.h.
//
// Per content:
//
//   none --> waiting --> sending --> resident --> none (least recently used first; never while leased)
//                           `--> none (a rank refused it: rolled back on all of them)
//
// A lease is a request's hold while plans may touch the slot. While a content waits for a slot and none is free, a
// resident one gives way: it gets no new leases and drains. Else a stream of requests for resident adapters would keep
// another one out for ever.
//
// A content that is kept stays in its slot once it has one, and gives way to nobody; at least one slot has none.
//
// Nothing on a request's path walks over contents or slots. Not for use by two threads at once.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "actors/head/staged_adapter.h"
#include "engine/ids.h"

namespace lorikeet::actors {

class AdapterSlots {
 public:
  using Id = engine::SequenceId;

  // What is to be done, in order.
  struct Send {  // to all ranks: sent() follows
    uint64_t transfer = 0;
    int32_t slot = 0;
    std::shared_ptr<const StagedAdapter> adapter;
  };
  struct Clear {  // on all ranks: what the transfer has brought
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
  using Effect = std::variant<Send, Clear, Acquired, Pin, Unpin>;

  explicit AdapterSlots(int32_t slots);
  AdapterSlots(const AdapterSlots&) = delete;
  AdapterSlots& operator=(const AdapterSlots&) = delete;

  // A request that has claimed the content will want it in a slot; it ends. Among contents that nobody leases, those
  // that no request wants lose their slots first.
  void claimed(const std::string& digest);
  void unclaimed(const std::string& digest);

  // A request wants the content in a slot, and is done with it. `staged` is null where the host has no copy. Unknown
  // ids are fine.
  void acquire(Id id, const std::string& digest, std::shared_ptr<const StagedAdapter> staged);
  void release(Id id, const std::string& digest);
  // error empty: resident on all ranks. ranks_failed: the error is not the adapter's.
  void sent(const std::string& digest, const std::string& error, bool ranks_failed = false);
  void drop(const std::string& digest);  // no request will want it; nobody holds it

  // Once in a slot the content stays there until it is kept no more. The caller leaves one slot at least to others.
  void keep(const std::string& digest, bool kept);
  // Whether acquire() would be answered without another content giving way that is leased.
  bool has_slot_for(const std::string& digest) const;

  int32_t size() const { return num_slots_; }
  bool is_resident(const std::string& digest) const;
  std::vector<std::string> resident() const;  // digests; as many as there are slots at the most

  // The ranks are there with empty slots; they are gone and all slots with them.
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
  enum class State : uint8_t { none, waiting, sending, resident };
  struct Content;
  using Key = std::tuple<size_t, bool, uint64_t, Content*>;  // leases, claimed, last used
  using Index = std::set<Key>;
  struct Content {
    const std::string* digest = nullptr;  // the key
    State state = State::none;
    int32_t slot = -1;
    uint64_t transfer = 0;  // that brings or brought it to the ranks
    bool draining = false;  // resident, and to give its slot to one that waits
    bool kept = false;
    std::set<Id> leases;   // requests that have the slot
    std::set<Id> waiters;  // requests that have not got it yet
    size_t claims = 0;
    uint64_t last_used = 0;
    uint64_t ticket = 0;                          // of queue_, while it waits
    Index* index = nullptr;                       // resident_ or draining_, while it is resident
    Key key;                                      // there
    bool pinned = false;                          // as the host was told
    std::shared_ptr<const StagedAdapter> staged;  // while pinned
    std::string error;                            // of the last way to the ranks
  };

  Content& find_or_add(const std::string& digest);
  void queue(Content& content);
  void assign_slots();
  int32_t free_slot();
  void choose_draining();
  void grant(Content& content);
  void fail_waiters(Content& content, const std::string& error, bool ranks_failed);
  void update(Content& content);

  std::unordered_map<std::string, Content> contents_;  // claimed, in a slot, on their way to one, or with an error
  std::set<int32_t> free_slots_;
  std::map<uint64_t, Content*> queue_;  // that wait for a slot, by ticket
  Index resident_;                      // that take new leases
  Index draining_;                      // that do not
  const int32_t num_slots_;
  bool group_ = false;
  uint64_t clock_ = 0;
  uint64_t tickets_ = 0;
  uint64_t transfers_ = 0;
  std::vector<Effect> effects_;
};

}  // namespace lorikeet::actors
