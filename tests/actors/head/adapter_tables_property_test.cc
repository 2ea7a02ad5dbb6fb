// The promises of the adapters' tables in random histories.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "actors/head/adapter_key.h"
#include "tests/actors/head/adapter_tables.h"
#include "tests/actors/head/staged_adapters.h"

namespace lorikeet::actors {
namespace {

using engine::SequenceId;
using ::testing::IsEmpty;

std::string describe(const AdapterTables& tables) {
  std::string lines;
  for (const auto& row : tables.rows()) {
    lines += "\n" + row.name + " " + row.digest + " " + row.host + " " + row.slot_state + " leases " +
             std::to_string(row.leases) + " claims " + std::to_string(row.claims);
  }
  return lines;
}

// Random histories against what must always hold: no leased or claimed content is evicted, no slot is given twice, the
// budget is kept, nobody is answered by files that had been replaced when he came, and in the end everybody has been
// answered.
class History {
 public:
  History(uint32_t seed, bool names_change) : names_change_(names_change), random_(seed) {}

  void run() {
    for (int step = 0; step < 300; ++step) {
      take_step();
      check();
    }
    end_all();
  }

 private:
  enum State { resolving, claimed, acquiring, leased };
  struct Request {
    State state = resolving;
    std::string name, digest;
    int64_t came_at = 0;  // the version of the files then
    int32_t slot = -1;
  };
  struct Wish {
    AdapterTables::Effect effect;
    int64_t seen = 0;  // the version that a look at the files finds
  };

  uint32_t below(uint32_t n) { return std::uniform_int_distribution<uint32_t>(0, n - 1)(random_); }
  static std::string digest_of(const std::string& name, int64_t version) { return name + std::to_string(version); }

  // The name that a key's files have their versions by.
  static std::string files_of(const std::string& key) { return name_in_key(key); }

  void collect() {
    for (auto& effect : tables_.take_effects()) {
      if (const auto* resolved = std::get_if<HostAdapters::Resolved>(&effect)) {
        if (resolved->unknown) {  // it was unloaded before
          EXPECT_FALSE(served_.contains(requests_.at(resolved->id.value()).name));
          requests_.erase(resolved->id.value());
          continue;
        }
        ASSERT_EQ(resolved->error, "");
        Request& request = requests_.at(resolved->id.value());
        request.state = claimed;
        request.digest = resolved->digest;
        EXPECT_GE(std::stoll(resolved->digest.substr(1)), request.came_at);
      } else if (const auto* acquired = std::get_if<AdapterSlots::Acquired>(&effect)) {
        Request& request = requests_.at(acquired->id.value());
        request.state = acquired->error.empty() ? leased : claimed;
        request.slot = acquired->slot.value();
      } else if (const auto* cancel = std::get_if<HostAdapters::Cancel>(&effect)) {
        if (below(2) == 0) continue;  // it has begun
        const auto begun = std::find_if(pending_.begin(), pending_.end(), [&](const Wish& wish) {
          const auto* check = std::get_if<HostAdapters::Check>(&wish.effect);
          const auto* read = std::get_if<HostAdapters::Read>(&wish.effect);
          return (check != nullptr && check->name == cancel->name) || (read != nullptr && read->name == cancel->name);
        });
        ASSERT_NE(begun, pending_.end());
        pending_.erase(begun);
        tables_.cancelled(cancel->name);
        collect();
      } else if (const auto* check = std::get_if<HostAdapters::Check>(&effect)) {
        pending_.push_back({effect, versions_[files_of(check->name)]});
      } else if (const auto* read = std::get_if<HostAdapters::Read>(&effect)) {
        pending_.push_back({effect, versions_[files_of(read->name)]});
      } else if (!std::holds_alternative<AdapterSlots::Clear>(effect)) {
        pending_.push_back({effect, 0});
      }
    }
  }

  void grant(size_t index) {
    const Wish wish = pending_[index];
    pending_.erase(pending_.begin() + static_cast<ptrdiff_t>(index));
    if (const auto* check = std::get_if<HostAdapters::Check>(&wish.effect)) {
      tables_.checked(check->name, stamp(wish.seen));
    } else if (const auto* read = std::get_if<HostAdapters::Read>(&wish.effect)) {
      tables_.read(read->name, stamp(wish.seen), staged(digest_of(files_of(read->name), wish.seen)));
    } else {
      const auto& send = std::get<AdapterSlots::Send>(wish.effect);
      tables_.sent(send.adapter->digest, below(5) == 0 ? "a rank refuses" : "");
    }
    collect();
  }

  void end(std::map<uint64_t, Request>::iterator it) {
    const auto [id, request] = *it;
    if (request.state >= acquiring) tables_.release(SequenceId(id), request.digest);
    tables_.unclaim(SequenceId(id));
    if (const auto load = loads_.extract(id)) {
      tables_.host([&](auto& table) { table.abandon(load.mapped()); });
    }
    requests_.erase(it);
    collect();
  }

  // A name leaves, a directory is to get one, or gets it, or a name keeps its content or does so no more.
  void change_names() {
    const std::string name(1, static_cast<char>('a' + below(4)));
    switch (below(4)) {
      case 0:
        tables_.host([&](auto& table) { table.leave(name); });
        served_.erase(name);
        if (kept_ == name) kept_.clear();
        break;
      case 1: {
        const uint64_t id = ++next_;
        requests_[id] = {resolving, name, "", versions_[name], -1};
        loads_[id] = loaded_key(name, id);
        tables_.host([&](auto& table) { table.prepare(SequenceId(id), loads_[id], "/" + name); });
        break;
      }
      case 2: {
        const auto load = std::find_if(loads_.begin(), loads_.end(),
                                       [&](const auto& l) { return requests_.at(l.first).state == claimed; });
        if (load == loads_.end()) break;
        const auto request = requests_.find(load->first);
        served_.insert(request->second.name);
        tables_.host([&](auto& table) { table.enter(load->second); });
        end(request);
        break;
      }
      default:
        if (!kept_.empty()) {
          tables_.host([&](auto& table) { EXPECT_TRUE(table.keep(kept_, false)); });
          kept_.clear();
        } else {
          tables_.host([&](auto& table) {
            if (table.keep(name, true)) kept_ = name;
          });
        }
    }
  }

  void toggle_group() {
    group_ ? tables_.group_lost() : tables_.group_formed();
    group_ = !group_;
    std::erase_if(pending_, [](const Wish& wish) { return std::holds_alternative<AdapterSlots::Send>(wish.effect); });
    if (group_) return;
    for (auto& [id, request] : requests_) {
      if (request.state == leased) request.state = claimed;
    }
  }

  void take_step() {
    if (names_change_ && below(4) == 0) {
      change_names();
      return collect();
    }
    const uint32_t what = below(10);
    if (what < 3) {
      const std::string name(1, static_cast<char>('a' + below(4)));
      requests_[++next_] = {resolving, name, "", versions_[name], -1};
      tables_.resolve(SequenceId(next_), name);
    } else if (what == 3) {
      ++versions_[std::string(1, static_cast<char>('a' + below(4)))];
    } else if (what == 4 && below(4) == 0) {
      toggle_group();
    } else if (what < 7 && !pending_.empty()) {
      grant(below(static_cast<uint32_t>(pending_.size())));
    } else if (!requests_.empty()) {
      const auto it = std::next(requests_.begin(), below(static_cast<uint32_t>(requests_.size())));
      if (it->second.state == claimed && what < 9) {
        it->second.state = acquiring;
        tables_.acquire(SequenceId(it->first), it->second.digest);
      } else {
        end(it);
      }
    }
    collect();
  }

  void check() {
    EXPECT_LE(tables_.staged_bytes(), kBudget);
    std::map<int32_t, std::string> slots;
    std::map<std::string, AdapterTables::Row> by_digest;
    for (const auto& row : tables_.rows()) {
      by_digest[row.digest] = row;
      if (row.name == kept_ && row.host != "replaced") {
        EXPECT_NE(row.host, "on_disk");
      }
      if (row.slot < 0) continue;
      EXPECT_TRUE(slots.emplace(row.slot, row.digest).second || slots[row.slot] == row.digest);
    }
    for (const auto& [id, request] : requests_) {
      if (request.state == leased) {
        EXPECT_EQ(slots[request.slot], request.digest) << "request " << id;
      }
      if (request.state != resolving) {
        EXPECT_GE(by_digest[request.digest].claims, 1u) << "request " << id;
        EXPECT_NE(by_digest[request.digest].host, "on_disk") << "request " << id;
      }
    }
  }

  // Requests end as soon as they have what they asked for.
  void end_all() {
    if (!group_) toggle_group();
    if (!kept_.empty()) tables_.host([&](auto& table) { EXPECT_TRUE(table.keep(std::exchange(kept_, ""), false)); });
    collect();
    for (int round = 0; round < 2000 && (!pending_.empty() || !requests_.empty()); ++round) {
      while (!pending_.empty()) grant(0);
      if (requests_.empty()) break;
      const auto done = std::find_if(requests_.begin(), requests_.end(), [](const auto& r) {
        return r.second.state == leased || r.second.state == claimed;
      });
      ASSERT_NE(done, requests_.end()) << "somebody waits for ever:" << describe(tables_);
      end(done);
    }
    EXPECT_THAT(requests_, IsEmpty());
    for (const auto& row : tables_.rows()) {
      EXPECT_EQ(row.leases, 0u);
      EXPECT_EQ(row.claims, 0u);
      EXPECT_NE(row.host, "replaced");
    }
  }

  static constexpr uint64_t kBudget = 35;  // for three of ten bytes
  const bool names_change_;
  std::mt19937 random_;
  std::set<std::string> served_ = {"a", "b", "c", "d"};
  std::string kept_;                       // the name that keeps its content; empty: none does
  std::map<uint64_t, std::string> loads_;  // request -> the key of the directory that is to get a name
  AdapterTables tables_{{3, kBudget}, 2, {{"a", "/a"}, {"b", "/b"}, {"c", "/c"}, {"d", "/d"}}};
  std::map<std::string, int64_t> versions_;
  std::map<uint64_t, Request> requests_;
  std::vector<Wish> pending_;
  bool group_ = false;
  uint64_t next_ = 0;
};

TEST(AdapterTablesProperty, HoldTheirPromisesInRandomHistories) {
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    History(seed, false).run();
  }
}

TEST(AdapterTablesProperty, HoldTheirPromisesWhileNamesComeAndGo) {
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    History(seed, true).run();
  }
}

// More adapters than fit, of different sizes, each with a stream of requests of which the next comes before the last
// one ends: every request gets its content within a bounded number of ends of others.
TEST(AdapterTablesProperty, KeepNoAdapterOutOfTheMemory) {
  for (uint32_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto below = [&](uint32_t n) { return std::uniform_int_distribution<uint32_t>(0, n - 1)(random); };
    constexpr uint32_t kNames = 6;
    std::vector<std::pair<std::string, std::string>> modules;
    for (uint32_t i = 0; i < kNames; ++i) modules.emplace_back(std::string(1, static_cast<char>('a' + i)), "/");
    HostAdapters host({4, 40}, modules);
    std::map<uint64_t, std::string> waiting, holding;
    std::map<uint64_t, uint64_t> ends_at;  // of requests that wait: how many had ended when they came
    uint64_t next = 0, ends = 0;
    const auto act = [&] {
      for (auto effects = host.take_effects(); !effects.empty(); effects = host.take_effects()) {
        for (auto& effect : effects) {
          if (const auto* check = std::get_if<HostAdapters::Check>(&effect)) {
            host.checked(check->name, stamp(1), "");
          } else if (const auto* read = std::get_if<HostAdapters::Read>(&effect)) {
            host.read(read->name, stamp(1), staged(read->name, 5 + 7 * (read->name[0] - 'a')));
          } else if (const auto* resolved = std::get_if<HostAdapters::Resolved>(&effect)) {
            ASSERT_EQ(resolved->error, "");
            const auto it = waiting.find(resolved->id.value());
            ASSERT_NE(it, waiting.end());
            EXPECT_LE(ends - ends_at[it->first], 400u) << "request for " << it->second;
            holding.insert(waiting.extract(it));
          }
        }
        EXPECT_LE(host.staged_bytes(), 40u);
      }
    };
    for (int step = 0; step < 3000; ++step) {
      if (waiting.size() + holding.size() < 20) {
        const std::string& name = modules[below(kNames)].first;
        waiting[++next] = name;
        ends_at[next] = ends;
        host.resolve(SequenceId(next), name);
      } else if (!holding.empty()) {
        const auto it = std::next(holding.begin(), below(static_cast<uint32_t>(holding.size())));
        const uint64_t id = it->first;
        holding.erase(it);
        ++ends;
        host.unclaim(SequenceId(id), AdapterOutcome::success);
      }
      act();
      ASSERT_FALSE(holding.empty()) << "everybody waits";
    }
    EXPECT_GT(ends, 1000u);
  }
}

}  // namespace
}  // namespace lorikeet::actors
