// What the tests of HostAdapters and AdapterSlots share: the two together, spoken to in short.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/actors/head/adapter_tables.h"
#include "tests/actors/head/staged_adapters.h"

namespace lorikeet::actors {

// Plays the reader and the ranks: every wish of the tables becomes a line, and is granted by the test.
class AdapterTablesTest : public ::testing::Test {
 protected:
  struct Limits {
    int32_t slots, staged_count;
    uint64_t staged_bytes;
  };
  void make(Limits limits) {
    tables_ = std::make_unique<AdapterTables>(
        HostAdapters::Limits{limits.staged_count, limits.staged_bytes}, limits.slots,
        std::vector<std::pair<std::string, std::string>>{{"a", "/a"}, {"b", "/b"}, {"c", "/c"}});
  }

  std::vector<std::string> wishes() {
    std::vector<std::string> lines;
    for (const auto& effect : tables_->take_effects())
      lines.push_back(std::visit([](auto& e) { return line(e); }, effect));
    return lines;
  }

  static std::string line(const HostAdapters::Check& e) { return "check " + e.name; }
  static std::string line(const HostAdapters::Read& e) { return "read " + e.name; }
  static std::string line(const HostAdapters::Cancel& e) { return "cancel " + e.name; }
  static std::string line(const HostAdapters::Resolved& e) {
    return "resolved " + std::to_string(e.id.value()) + " " + (e.error.empty() ? e.digest : "error: " + e.error);
  }
  static std::string line(const AdapterSlots::Send& e) {
    return "send " + e.adapter->digest + " to " + std::to_string(e.slot);
  }
  static std::string line(const AdapterSlots::Clear& e) { return "clear " + std::to_string(e.slot); }
  static std::string line(const AdapterSlots::Acquired& e) {
    return "acquired " + std::to_string(e.id.value()) + " " +
           (e.error.empty() ? std::to_string(e.slot.value()) : "error: " + e.error);
  }

  void resolve(uint64_t id, const std::string& name) { tables_->resolve(engine::SequenceId(id), name); }
  void checked(const std::string& name, int64_t version = 1) { tables_->checked(name, stamp(version)); }
  void read(const std::string& name, const std::string& digest, uint64_t bytes = 10, int64_t version = 1) {
    tables_->read(name, stamp(version), staged(digest, bytes));
  }
  void unclaim(uint64_t id) { tables_->unclaim(engine::SequenceId(id)); }

  // A request whose adapter is read and found to have this digest.
  void claim(uint64_t id, const std::string& name, const std::string& digest, uint64_t bytes = 10,
             int64_t version = 1) {
    resolve(id, name);
    checked(name, version);
    read(name, digest, bytes, version);
  }

  void acquire(uint64_t id, const std::string& digest) { tables_->acquire(engine::SequenceId(id), digest); }
  void release(uint64_t id, const std::string& digest) { tables_->release(engine::SequenceId(id), digest); }

  AdapterTables::Row row(const std::string& name) {
    for (auto& r : tables_->rows()) {
      if (r.name == name && r.host != "replaced") return r;
    }
    return {};
  }

  std::unique_ptr<AdapterTables> tables_;
};

}  // namespace lorikeet::actors
