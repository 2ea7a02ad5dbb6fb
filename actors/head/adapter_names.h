// The names of the adapters that are served, and the directory of each. The adapter cache changes them while the server
// runs; checking a request or listing models reads them from any thread, at the cost of one look-up.
//
// Copies share one table.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace lorikeet::actors {

// Threads: any.
class AdapterNames {
 public:
  using List = std::vector<std::pair<std::string, std::string>>;  // name -> directory

  AdapterNames() : AdapterNames(List{}) {}
  explicit AdapterNames(const List& modules);

  bool contains(const std::string& name) const;
  std::optional<std::string> directory_of(const std::string& name) const;
  size_t size() const;
  List list(size_t most = SIZE_MAX) const;  // in the order in which they came

  void set(const std::string& name, std::string directory);  // a known name keeps its place
  void erase(const std::string& name);

 private:
  struct Entry {
    std::string name, directory;
  };
  struct Table {
    mutable std::shared_mutex mutex;
    std::unordered_map<std::string, uint64_t> numbers;
    std::map<uint64_t, Entry> entries;  // by number
    uint64_t last = 0;
  };
  std::shared_ptr<Table> table_;
};

}  // namespace lorikeet::actors
