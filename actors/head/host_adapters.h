// Which adapters there are, and which are in the head's memory. No threads, disks or ranks in here: events go in, effects
// come out. Which are in slots of the ranks: actors/head/adapter_slots.h.
//
// A name leads to a directory, whose content has a digest. Per content:
//
//   on_disk --> reading --> staged --> on_disk (under the budget, in the order of actors/head/eviction_order.h; never
//                  |                            while held)
//                  `--> waiting_for_memory --> reading (in the order in which they came; the place is kept meanwhile)
//
// Claims and pins hold a content. A claim is a request's, from its arrival to its end; a pin is a group's, while it
// leases a slot with the content or waits for one. While an adapter waits for memory, others give way: they get no new
// claims and are evicted when their last holder ends, so that no stream of requests keeps an adapter out. A name whose
// files were replaced leads to the new content from then on; the old one stays until nobody holds it. A name whose files
// are gone keeps leading to what they held while that is staged, since it is served right without them; so does one whose
// files cannot be read while they are being written.
//
// Names come and go while requests run. A directory that is to get a name is read like any other, and found by requests
// once it has entered the table; a name that leaves it, or leads to another directory from then on, is served to those
// requests that had come before.
//
// A content that a name keeps (`lorikeet adapters pin`) stays in memory. It gives way to nobody, so what does not fit
// beside the kept ones is refused and does not wait.
//
// A content whose requests end without a token, since its logits are not finite, is set aside: it gets no new claims
// until it is replaced.
//
// Nothing on a request's path walks over names or contents. Not for use by two threads at once.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "actors/head/adapter_outcome.h"
#include "actors/head/eviction_order.h"
#include "actors/head/file_stamp.h"
#include "actors/head/frequency_sketch.h"
#include "actors/head/record_list.h"
#include "actors/head/staged_adapter.h"
#include "engine/ids.h"
#include "engine/record_index.h"
#include "engine/record_pool.h"
#include "kernels/base/error.h"

namespace lorikeet::actors {

class HostAdapters {
 public:
  using Id = engine::SequenceId;
  static constexpr int kMostWithoutToken = 3;  // requests in a row, until their content is set aside
  struct Limits {
    int32_t count = 0;   // staged contents; 0: as many as the bytes allow
    uint64_t bytes = 0;  // of all of them
  };

  // What is to be done, in order. `name` is the key of the name's work (actors/head/adapter_key.h), here and in the
  // answers.
  struct Check {  // look at the files: checked() follows
    std::string name, dir;
  };
  struct Read {  // stage it: read() follows
    std::string name, dir;
    uint64_t file_bytes = 0;  // of the tensors, when they were looked at
  };
  struct Cancel {  // nobody waits for the Check or Read: where it has not begun, cancelled() follows in its stead
    std::string name;
  };
  struct Resolved {  // the answer to resolve(); without an error the content is claimed
    Id id;
    std::string digest, error;
    bool unknown = false;  // there is no such name
  };
  struct Unclaimed {  // one claim less
    std::string digest;
  };
  struct Dropped {  // no name leads to it any more and nobody holds it
    std::string digest;
  };
  struct Keep {  // names keep the content now, or do no more
    std::string digest;
    bool kept = false;
  };
  using Effect = std::variant<Check, Read, Cancel, Resolved, Unclaimed, Dropped, Keep>;

  HostAdapters(Limits limits, const std::vector<std::pair<std::string, std::string>>& modules);
  HostAdapters(const HostAdapters&) = delete;
  HostAdapters& operator=(const HostAdapters&) = delete;

  // A request for the adapter has arrived: claims its present content, reading it where need be. It is answered by what
  // the files hold after its arrival, never by an earlier look at them; where they are half written, by what they held.
  void resolve(Id id, const std::string& name);
  void unclaim(Id id, AdapterOutcome outcome);  // unknown ids are fine

  void checked(const std::string& name, const FileStamp& stamp, const std::string& error);  // empty: none
  void read(const std::string& name, const FileStamp& stamp, Result<std::shared_ptr<const StagedAdapter>> adapter);
  void cancelled(const std::string& name);

  // A directory that is to get a name, under a new loaded_key(): its content is claimed as by resolve(), and requests
  // find it when it enters. What had the name leaves, and hands on that it is kept.
  void prepare(Id id, const std::string& key, std::string dir);
  void enter(const std::string& key);    // prepared, and resolved without an error
  void abandon(const std::string& key);  // prepared; its claim is unclaimed as any other
  // A name that leads to a directory from now on, under a new loaded_key(); its files are read when it is asked for.
  void restore(const std::string& key, std::string dir);
  // Requests find the name no more; those that wait for it are served. False: there is no such name.
  bool leave(const std::string& name);
  bool knows(const std::string& name) const { return names_.find(name) != nullptr; }
  bool is_staged(const std::string& name) const;  // what it led to at the last look at its files

  // kept: the name keeps its content, which is staged, and whatever it leads to later; else it stops doing so. Errors: no
  // such name, no content, no room left for adapters that are not kept.
  Result<void> keep(const std::string& name, bool kept);

  // A group's hold; as many unpins as pins. Unknown digests are fine.
  void pin(const std::string& digest);
  void unpin(const std::string& digest);

  std::shared_ptr<const StagedAdapter> staged(const std::string& digest) const;  // null: not in memory

  std::vector<Effect> take_effects();

  struct Row {  // of the status
    std::string name, digest, dir, host, error;
    int32_t max_rank = 0;
    size_t claims = 0;
    uint64_t bytes = 0;
    bool kept = false, set_aside = false;
  };
  // By name, then contents that were replaced and are still held, and those that are to get a name.
  std::vector<Row> rows() const;
  // The same of what is in memory or has one of these digests, and of `others` names at the most; at the cost of those.
  std::vector<Row> rows(const std::vector<std::string>& digests, size_t others) const;
  size_t size() const { return names_.size(); }  // names
  uint64_t staged_bytes() const { return staged_bytes_; }
  size_t staged_count() const { return staged_count_; }
  uint64_t budget_bytes() const { return limits_.bytes; }
  uint64_t most() const { return most_; }            // staged contents; 0: as many as the bytes allow
  uint64_t evictions() const { return evictions_; }  // so far, of contents that names lead to

  // Index places looked at so far, for names and for contents: by this tests show that the cost of a request does not
  // depend on how many there are.
  uint64_t looks() const { return names_.looks() + contents_.looks(); }

 private:
  enum class Work : uint8_t {
    none,
    checking,
    reading,
    queued,  // for memory
    parked   // its content gives way to those that are queued
  };
  struct Content;
  // In both structures what every request touches comes first: with many names it is in no cache.
  struct alignas(64) Name {
    std::string name;            // what requests call it
    Content* content = nullptr;  // last read; null: none yet
    uint64_t file_bytes = 0;     // of the tensors, when they were looked at last
    Work work = Work::none;
    bool leaves = false;     // no request finds it: it goes when its work is done and nobody waits
    bool kept = false;       // it keeps its content
    bool has_place = false;  // its needed bytes are among the reserved ones
    std::string key;         // what its work is told by
    std::string dir;
    std::set<Id> waiters;       // requests that the present work answers
    std::set<Id> late;          // requests that came after it had begun
    FileStamp stamp;            // of the files that the content was read from
    std::string error;          // of the last look or reading
    uint64_t needed_bytes = 0;  // of memory for which it waits, or which are kept for its reading
    uint64_t ticket = 0;        // of memory_queue_

    bool awaited() const { return !waiters.empty() || !late.empty(); }
  };
  // Where a content's host copy is: among those that nobody holds, or on the list of those that are held, that give way,
  // that names keep.
  enum class Place : uint8_t { on_disk, idle, held, draining, kept };
  struct alignas(64) Content {
    std::string digest;
    std::shared_ptr<const StagedAdapter> staged;  // null: not in the host's memory
    Place place = Place::on_disk;
    int without_token = 0;  // requests in a row that ended so
    ListLinks<Content> links;
    EvictionState eviction;
    size_t claims = 0, pins = 0;
    size_t keepers = 0;       // names that keep it
    std::set<Name*> leading;  // names that lead to it
    uint64_t bytes = 0;
    int32_t max_rank = 0;
    std::set<Name*> parked;  // names whose requests wait until it is known whether it is evicted
    std::string name, dir;   // that it was read from last

    bool held() const { return claims + pins + keepers > 0; }
    bool set_aside() const { return without_token >= kMostWithoutToken; }
  };
  struct NameOf {
    const std::string& operator()(const Name& name) const { return name.name; }
  };
  struct DigestOf {
    const std::string& operator()(const Content& content) const { return content.digest; }
  };
  using ContentList = RecordList<Content, &Content::links>;
  static constexpr size_t kFirstListed = static_cast<size_t>(Place::held);
  struct Request {
    Name* name = nullptr;        // it waits there
    Content* content = nullptr;  // it has claimed this
  };

  struct Room {
    uint64_t bytes = 0;
    size_t count = 0;
  };

  Name* find_work(const std::string& key);
  engine::RecordPool<Name>::Pointer make_name(const std::string& name, const std::string& key, std::string dir);
  Name* find_hidden(const std::string& key) const;
  void change_keepers(Content& content, bool one_more);
  void note_rest(const Name& name);
  void erase_rests();
  void stop_waiting(Name& name, Id id);
  void answer(std::set<Id> ids, Content* content, const std::string& error);
  void start_check(Name& name);
  void start_read(Name& name);
  void go_on(Name& name);
  void fail_waiters(Name& name, std::string error);
  void unreadable(Name& name, const FileStamp& stamp, const std::string& why);
  void lead(Name& name, Content& content, const FileStamp& stamp);
  void give(Name& name, Content& content);
  static std::string why_set_aside(const Content& content);
  static Row row_of(const std::string& name, const std::string& dir, const Content* content);
  static Row row_of(const Name& name);
  Content& stage(std::shared_ptr<const StagedAdapter> adapter);
  ContentList& list(Place place) { return lists_[static_cast<size_t>(place) - kFirstListed]; }
  const ContentList& list(Place place) const { return lists_[static_cast<size_t>(place) - kFirstListed]; }
  void put(Content& content, Place place);
  void file(Content& content);
  void released(Content& content);
  void evict(Content& content);
  void drop_if_stale(Content& content);
  void undrain(Content& content);
  bool fits(uint64_t bytes, Room freed) const;
  bool can_ever_fit(uint64_t bytes) const;
  std::string why_it_cannot_fit(uint64_t bytes) const;
  bool make_room(uint64_t bytes);
  void queue_for_memory(Name& name, uint64_t bytes);
  void read_into_place(Name& name, uint64_t bytes);
  bool leave_place(Name& name);
  void serve_memory_queue();
  void choose_draining();

  const uint64_t most_;
  const Limits limits_;
  engine::RecordPool<Name> name_pool_;
  engine::RecordPool<Content> content_pool_;
  engine::RecordIndex<Name, NameOf> names_{name_pool_};
  // By key: names that no request finds, since they have not entered yet or are leaving.
  std::unordered_map<std::string, engine::RecordPool<Name>::Pointer> hidden_;
  std::vector<std::string> rests_;  // keys of those that leave and whose work is done
  engine::RecordIndex<Content, DigestOf> contents_{content_pool_};
  std::unordered_map<Id, Request> requests_;
  FrequencySketch uses_;  // claims, by the contents' digests
  EvictionOrder<Content, &Content::links, &Content::eviction> idle_;
  std::array<ContentList, 3> lists_;        // of the other staged contents by Place, least recently used first
  uint64_t draining_bytes_ = 0;             // of those that give way
  uint64_t kept_bytes_ = 0;                 // of those that names keep
  std::map<uint64_t, Name*> memory_queue_;  // by ticket
  uint64_t tickets_ = 0;
  uint64_t staged_bytes_ = 0;
  size_t staged_count_ = 0;
  uint64_t evictions_ = 0;
  Room reserved_;  // for readings of known size
  std::vector<Effect> effects_;
};

}  // namespace lorikeet::actors
