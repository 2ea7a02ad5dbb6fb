// The promises of the adapter table in random histories.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

#include "tests/actors/head/staged_adapters.h"

namespace lorikeet::actors {
namespace {

using engine::SequenceId;
using ::testing::IsEmpty;

std::string describe(const AdapterTable& table) {
  std::string lines;
  for (const auto& row : table.rows()) {
    lines += "\n" + row.name + " " + row.digest + " " + row.host + " " + row.slot_state + " leases " +
             std::to_string(row.leases) + " claims " + std::to_string(row.claims);
  }
  return lines;
}

// Random histories against what must always hold: no leased or claimed content is evicted, no slot is given twice, the
// budget is kept, and in the end everybody has been answered.
TEST(AdapterTableProperty, HoldsItsPromisesInRandomHistories) {
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto below = [&](uint32_t n) { return std::uniform_int_distribution<uint32_t>(0, n - 1)(random); };
    const std::vector<std::pair<std::string, std::string>> names = {{"a", "/a"}, {"b", "/b"}, {"c", "/c"}, {"d", "/d"}};
    AdapterTable table({2, 3, 35}, names);
    std::map<std::string, int64_t> versions;
    struct Request {
      enum { resolving, claimed, acquiring, leased } state = resolving;
      std::string digest;
      int32_t slot = -1;
    };
    std::map<uint64_t, Request> requests;
    std::vector<AdapterTable::Effect> pending;
    bool group = false;
    uint64_t next = 0;
    const auto collect = [&] {
      for (auto& effect : table.take_effects()) {
        if (const auto* resolved = std::get_if<AdapterTable::Resolved>(&effect)) {
          ASSERT_EQ(resolved->error, "");
          requests.at(resolved->id.value()).state = Request::claimed;
          requests.at(resolved->id.value()).digest = resolved->digest;
        } else if (const auto* acquired = std::get_if<AdapterTable::Acquired>(&effect)) {
          Request& request = requests.at(acquired->id.value());
          if (acquired->error.empty()) {
            request.state = Request::leased;
            request.slot = acquired->slot.value();
          } else {
            request.state = Request::claimed;
          }
        } else if (!std::holds_alternative<AdapterTable::Clear>(effect)) {
          pending.push_back(effect);
        }
      }
    };
    const auto grant = [&](size_t index) {
      const auto effect = pending[index];
      pending.erase(pending.begin() + static_cast<ptrdiff_t>(index));
      if (const auto* check = std::get_if<AdapterTable::Check>(&effect)) {
        table.checked(check->name, stamp(versions[check->name]));
      } else if (const auto* read = std::get_if<AdapterTable::Read>(&effect)) {
        const int64_t version = versions[read->name];
        table.read(read->name, stamp(version), staged(read->name + std::to_string(version)));
      } else {
        const auto& send = std::get<AdapterTable::Send>(effect);
        table.sent(send.adapter->digest, below(5) == 0 ? "a rank refuses" : "");
      }
      collect();
    };
    const auto end = [&](std::map<uint64_t, Request>::iterator it) {
      const auto [id, request] = *it;
      requests.erase(it);
      if (request.state >= Request::acquiring) table.release(SequenceId(id), request.digest);
      table.unclaim(SequenceId(id));
      collect();
    };
    const auto check = [&] {
      EXPECT_LE(table.staged_bytes(), 35u);
      std::map<int32_t, std::string> slots;
      for (const auto& row : table.rows()) {
        if (row.slot < 0) continue;
        EXPECT_TRUE(slots.emplace(row.slot, row.digest).second || slots[row.slot] == row.digest);
      }
      for (const auto& [id, request] : requests) {
        if (request.state == Request::leased) {
          EXPECT_EQ(slots[request.slot], request.digest) << "request " << id;
        }
      }
    };
    for (int step = 0; step < 300; ++step) {
      const uint32_t what = below(10);
      if (what < 3) {
        requests[++next] = {};
        table.resolve(SequenceId(next), names[below(4)].first);
      } else if (what == 3) {
        ++versions[names[below(4)].first];
      } else if (what == 4 && below(4) == 0) {
        group ? table.group_lost() : table.group_formed();
        group = !group;
        std::erase_if(pending, [](const auto& e) { return std::holds_alternative<AdapterTable::Send>(e); });
        if (!group) {
          for (auto& [id, request] : requests) {
            if (request.state == Request::leased) request.state = Request::claimed;
          }
        }
      } else if (what < 7 && !pending.empty()) {
        grant(below(static_cast<uint32_t>(pending.size())));
      } else if (!requests.empty()) {
        auto it = std::next(requests.begin(), below(static_cast<uint32_t>(requests.size())));
        if (it->second.state == Request::claimed && what < 9) {
          it->second.state = Request::acquiring;
          table.acquire(SequenceId(it->first), it->second.digest);
        } else {
          end(it);
        }
      }
      collect();
      check();
    }
    if (!group) table.group_formed();
    collect();
    for (int round = 0; round < 2000 && (!pending.empty() || !requests.empty()); ++round) {
      while (!pending.empty()) grant(0);
      if (requests.empty()) break;
      const auto done = std::find_if(requests.begin(), requests.end(), [](const auto& r) {
        return r.second.state == Request::leased || r.second.state == Request::claimed;
      });
      ASSERT_NE(done, requests.end()) << "somebody waits for ever:" << describe(table);
      end(done);
    }
    EXPECT_THAT(requests, IsEmpty());
    for (const auto& row : table.rows()) {
      EXPECT_EQ(row.leases, 0u);
      EXPECT_EQ(row.claims, 0u);
    }
  }
}

}  // namespace
}  // namespace lorikeet::actors
