#include "actors/head/adapter_names.h"

#include <algorithm>
#include <mutex>

namespace lorikeet::actors {

AdapterNames::AdapterNames(const List& modules) : table_(std::make_shared<Table>()) {
  for (const auto& [name, directory] : modules) set(name, directory);
}

bool AdapterNames::contains(const std::string& name) const {
  const std::shared_lock lock(table_->mutex);
  return table_->numbers.contains(name);
}

std::optional<std::string> AdapterNames::directory_of(const std::string& name) const {
  const std::shared_lock lock(table_->mutex);
  const auto found = table_->numbers.find(name);
  if (found == table_->numbers.end()) return std::nullopt;
  return table_->entries.at(found->second).directory;
}

size_t AdapterNames::size() const {
  const std::shared_lock lock(table_->mutex);
  return table_->numbers.size();
}

AdapterNames::List AdapterNames::list(size_t most) const {
  const std::shared_lock lock(table_->mutex);
  List list;
  list.reserve(std::min(most, table_->entries.size()));
  for (const auto& [number, entry] : table_->entries) {
    if (list.size() == most) break;
    list.emplace_back(entry.name, entry.directory);
  }
  return list;
}

void AdapterNames::set(const std::string& name, std::string directory) {
  const std::unique_lock lock(table_->mutex);
  const auto [found, added] = table_->numbers.try_emplace(name, table_->last + 1);
  if (added) ++table_->last;
  table_->entries[found->second] = {name, std::move(directory)};
}

void AdapterNames::erase(const std::string& name) {
  const std::unique_lock lock(table_->mutex);
  const auto found = table_->numbers.find(name);
  if (found == table_->numbers.end()) return;
  table_->entries.erase(found->second);
  table_->numbers.erase(found);
}

}  // namespace lorikeet::actors
