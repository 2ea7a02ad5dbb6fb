// Which names of adapters clients have changed, for the head that follows when this one is lost: an adapter whose loading
// was acknowledged is found again.
//
// A file in memory (/dev/shm) that belongs to one server: its name holds the supervisor's process and when that began, so
// no other server takes it for its own. Changes are appended; a head that finds some writes what is left of them anew.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kernels/base/descriptor.h"
#include "kernels/base/error.h"

namespace lorikeet::actors {

// How a name differs from what the server was started with.
struct NameChange {
  std::string name;
  std::optional<std::string> directory;  // that it was loaded from while the server runs
  bool removed = false;                  // it was taken away
  bool pinned = false;

  bool is_none() const { return !directory && !removed && !pinned; }
  bool operator==(const NameChange&) const = default;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("name", s.name);
    visit("directory", s.directory);
    visit("removed", s.removed);
    visit("pinned", s.pinned);
  }
};

// Threads: one.
class NameJournal {
 public:
  static constexpr size_t kMaxBytes =
      64 << 20;  // beyond it the file is rewritten; where that does not help, changes are refused

  // Reads what is there. A file that is missing, another user's or no journal counts as empty; what follows damage is
  // dropped.
  explicit NameJournal(std::filesystem::path path);

  std::vector<NameChange> changes() const;  // by name: what has been found, and added since

  // Errors: it cannot be written; the next head will then not know of the change.
  Result<void> add(const NameChange& change);

  // The server ends and nobody follows.
  void remove();

  static std::filesystem::path path_of(pid_t supervisor);

  // Those of servers that are gone.
  static void remove_dead();

 private:
  Result<void> open();
  void read();
  Result<void> append(const NameChange& change);
  Result<void> write_anew();

  const std::filesystem::path path_;
  Descriptor file_;
  size_t bytes_ = 0;
  std::map<std::string, NameChange> changes_;  // by name
};

}  // namespace lorikeet::actors
