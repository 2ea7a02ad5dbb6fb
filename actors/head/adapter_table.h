// The directory of adapters, without threads, disks or ranks: events go in, things to do come out.
//
// A name leads to a directory, whose content has a digest. Per content:
//
//   host:  on_disk --> reading --> staged --> on_disk (LRU under the byte budget; never while claimed or leased)
//   slot:  none --> waiting --> sending --> resident --> none (LRU; never while leased)
//                                  `--> none (a rank refused it: rolled back on all of them)
//
// While a content waits for a slot and none is free, a resident one gives way: it gets no new leases and drains. Else a
// stream of requests for resident adapters would keep another one out for ever.
//
// A claim is a request's hold on a content from its arrival to its end; it keeps the host copy. A lease is the
// scheduler's hold while plans may touch the slot. A name whose files were replaced leads to the new content from then
// on; the old one stays until nobody holds it.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "actors/head/staged_adapter.h"
#include "engine/ids.h"
#include "kernels/base/error.h"

namespace lorikeet::actors {

class AdapterTable {
 public:
  using Id = engine::SequenceId;
  struct Limits {
    int32_t slots = 8;
    int32_t staged_count = 64;
    uint64_t staged_bytes = 0;
  };

  // What is to be done, in order.
  struct Check {  // look at the files: checked() follows
    std::string name, dir;
  };
  struct Read {  // stage it: read() follows
    std::string name, dir;
  };
  struct Resolved {  // the answer to resolve()
    Id id;
    std::string digest, error;
  };
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
  };
  using Effect = std::variant<Check, Read, Resolved, Send, Clear, Acquired>;

  AdapterTable(Limits limits, const std::vector<std::pair<std::string, std::string>>& modules);

  // A request for the adapter has arrived: claims its present content, reading it where need be.
  void resolve(Id id, const std::string& name);
  void checked(const std::string& name, const FileStamp& stamp);
  void read(const std::string& name, const FileStamp& stamp, Result<std::shared_ptr<const StagedAdapter>> adapter);
  void unclaim(Id id);  // unknown ids are fine
  void recheck_all();   // looks at all files again

  // The scheduler wants a claimed content in a slot, and is done with it. Unknown ids are fine.
  void acquire(Id id, const std::string& digest);
  void release(Id id, const std::string& digest);
  void sent(const std::string& digest, const std::string& error);  // error empty: resident on all ranks

  // The ranks are there with empty slots; they are gone and all slots with them.
  void group_formed();
  void group_lost();

  std::vector<Effect> take_effects() { return std::exchange(effects_, {}); }

  struct Row {  // of the status
    std::string name, digest, dir, host, slot_state, error;
    int32_t slot = -1;
    int32_t max_rank = 0;
    size_t leases = 0, claims = 0;
    uint64_t bytes = 0;
  };
  std::vector<Row> rows() const;
  uint64_t staged_bytes() const { return staged_bytes_; }

 private:
  enum class HostWork : uint8_t { none, checking, reading, waiting_for_memory };
  enum class SlotState : uint8_t { none, waiting, sending, resident };
  struct Name {
    std::string dir;
    HostWork work = HostWork::none;
    std::string digest;  // of the content last read; empty: none yet
    FileStamp stamp;
    std::vector<Id> waiters;  // requests to be resolved
    uint64_t needed_bytes = 0;
    std::string error;  // of the last read
  };
  struct Content {
    std::string name, dir;
    std::shared_ptr<const StagedAdapter> staged;  // null: not in the host's memory
    uint64_t bytes = 0;
    int32_t max_rank = 0;
    SlotState state = SlotState::none;
    int32_t slot = -1;
    uint64_t transfer = 0;                 // that brings or brought it to the ranks
    bool draining = false;                 // resident, and to give its slot to one that waits
    std::set<Id> claims, leases, waiters;  // waiters: acquired, the slot is not theirs yet
    uint64_t last_used = 0;
    std::string error;  // of the last way to the ranks

    bool held() const { return !claims.empty() || !leases.empty() || !waiters.empty(); }
  };

  void start_read(const std::string& name, Name& entry);
  void resolve_waiters(Name& entry, const std::string& error);
  void claim(Content& content, Id id);
  bool make_room(uint64_t bytes, const std::string& keep);
  void retry_reads();
  void assign_slots();
  int32_t free_slot();
  void choose_draining();
  void grant(Content& content);
  bool is_current(const std::string& digest) const;  // some name leads to it
  void drop_if_stale(const std::string& digest);
  void unstage(Content& content);

  Limits limits_;
  std::map<std::string, Name> names_;
  std::map<std::string, Content> contents_;  // by digest
  std::map<Id, std::string> claims_;         // request -> digest
  std::vector<std::string> slots_;           // digest in each slot; empty: free
  std::deque<std::string> slot_queue_;       // digests that wait for a slot
  bool group_ = false;
  uint64_t clock_ = 0;
  uint64_t transfers_ = 0;
  uint64_t staged_bytes_ = 0;
  int32_t staged_count_ = 0;
  std::vector<Effect> effects_;
};

}  // namespace lorikeet::actors
