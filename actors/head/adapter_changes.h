// What clients change of the adapters that are served: load, unload, pin, unpin, warm. Calls in, effects out, around the
// adapters' two tables; without threads, disks or actors.
//
//   load     locating --> claiming --> acquiring --> in the table, answered
//   warm                  claiming --> acquiring --> answered
//   pin                   claiming --> acquiring --> kept, answered
//                            `-----------'`--> refused: nothing has changed
//
// A load claims and leases the adapter as a request does, so what cannot be served is refused before the name is there:
// by what its files hold, then by the ranks, all of them or none. It waits for no slot: where all are leased, the ranks
// take the adapter with its first request. What a name led to before is served to those who had asked for it.
//
// Changes are written down (Remember) for the next head, which starts with them: it serves a restored name at once, and
// removes it again if its files turn out to be gone.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <tl/expected.hpp>
#include <utility>
#include <variant>
#include <vector>

#include "actors/head/adapter_directories.h"
#include "actors/head/adapter_names.h"
#include "actors/head/adapter_slots.h"
#include "actors/head/host_adapters.h"
#include "actors/head/name_journal.h"
#include "comm/client/client_messages.h"

namespace lorikeet::actors {

class AdapterChanges {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  static constexpr size_t kMostAtOnce = 64;      // changes under way
  static constexpr size_t kMostNames = 1 << 17;  // that are served

  struct Settings {
    bool allowed = false;                  // load, unload, pin and unpin; anybody may warm, as a request does
    std::vector<std::string> base_models;  // names that no adapter may have
    std::chrono::milliseconds patience{120'000};
  };

  // What is to be done, in order.
  struct Locate {  // look for the directory of a client's path: located() follows
    std::string key, path;
  };
  struct Ended {  // the answer to begin()
    uint64_t number = 0;
    std::string message;
    std::string code;  // that of comm::Failure; empty: it is done
  };
  struct Remember {  // how a name now differs from what the server was started with
    NameChange change;
  };
  struct Forgotten {  // the files of a remembered name are gone
    std::string name, why;
  };
  using Effect = std::variant<Locate, Ended, Remember, Forgotten>;

  AdapterChanges(Settings settings, AdapterNames names, HostAdapters& host, AdapterSlots& slots);
  AdapterChanges(const AdapterChanges&) = delete;
  AdapterChanges& operator=(const AdapterChanges&) = delete;

  // Takes over the changes of an earlier head. Called before anything else.
  void restore(const std::vector<NameChange>& changes, TimePoint now);

  // Begins a change and returns its number; the request has passed comm::check_sizes. Where it can be answered at once,
  // Ended is among the effects.
  uint64_t begin(comm::AdapterRequest request, TimePoint now);

  void located(const std::string& key, const tl::expected<std::string, AdapterRefusal>& directory);
  // False: the answer is to somebody else. Otherwise the claim or lease that came with it is kept or given back here.
  bool resolved(const HostAdapters::Resolved& answer);
  bool acquired(const AdapterSlots::Acquired& answer);

  void group_formed(TimePoint now);  // what is kept goes back into slots
  void tick(TimePoint now);          // ends what takes too long

  std::vector<Effect> take_effects() { return std::exchange(effects_, {}); }

 private:
  enum class Action : uint8_t { load, warm, pin };
  struct Change {
    Action action = Action::warm;
    bool asked = true;  // somebody is to be answered
    std::string name;
    std::string key, directory, path;  // of load
    std::string digest;                // once it is claimed
    bool acquiring = false;
    TimePoint began;
  };
  using Changes = std::map<uint64_t, Change>;

  static HostAdapters::Id id_of(uint64_t number);
  Changes::iterator find(HostAdapters::Id id);

  void end(uint64_t number, std::string message, std::string code = "");
  void end(Changes::iterator it, std::string message, std::string code = "");
  void load(uint64_t number, comm::AdapterRequest request, TimePoint now);
  void unload(uint64_t number, const std::string& name);
  void unpin(uint64_t number, const std::string& name);
  void claim(uint64_t number, Action action, const std::string& name, bool asked, TimePoint now);
  void claimed(Changes::iterator it);
  void finish(Changes::iterator it);
  void end_unknown(uint64_t number, const std::string& name);
  void remember(const std::string& name);
  void found(const std::string& name, const tl::expected<std::string, AdapterRefusal>& directory);

  const Settings settings_;
  AdapterNames names_;
  HostAdapters& host_;
  AdapterSlots& slots_;
  uint64_t numbers_ = 0;
  Changes changes_;
  std::map<std::string, uint64_t> loading_;    // name -> its load that is under way
  std::set<std::string> pinned_;               // names
  std::map<std::string, std::string> loaded_;  // while the server runs: name -> directory
  std::set<std::string> first_;                // names of the start
  std::set<std::string> removed_;              // of them
  std::set<std::string> restored_;             // names whose files are being looked for
  std::vector<Effect> effects_;
};

}  // namespace lorikeet::actors
