#include "launcher/status_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "actors/wire/server_status.h"

namespace lorikeet::launcher {
namespace {

using ::testing::HasSubstr;

struct Rank {
  int32_t rank = 0;
  std::string state;
  std::optional<int32_t> layer;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("rank", s.rank);
    visit("state", s.state);
    visit("layer", s.layer);
  }
};
struct Engine {
  uint64_t waiting = 0, running = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("waiting", s.waiting);
    visit("running", s.running);
  }
};
struct Status {
  std::string model;
  std::vector<Rank> ranks;
  Engine engine;
  std::vector<Rank> adapters;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("model", s.model);
    visit("ranks", s.ranks);
    visit("engine", s.engine);
    visit("adapters", s.adapters);
  }
};

TEST(StatusTable, ShowsArraysAsTablesAndObjectsAsLines) {
  const Status status{"tiny", {{0, "ready", std::nullopt}, {1, "loading", 3}}, {2, 10}, {}};
  EXPECT_EQ(status_table(status),
            "model     tiny\n"
            "adapters  -\n"
            "\n"
            "ranks\n"
            "  rank state   layer\n"
            "  0    ready   -\n"
            "  1    loading 3\n"
            "\n"
            "engine\n"
            "  waiting  2\n"
            "  running  10\n");
}

TEST(StatusTable, ShowsAServersStatusWhole) {
  actors::ServerStatus status;
  status.model = "tiny";
  status.serving.serving = true;
  status.serving.engine.stats.running = 3;
  status.serving.steps.decode_idle.add(5);
  status.serving.ranks.push_back({0, "ready", 12, 1, "host", "cpu", 1, 2, 3});
  status.adapters.adapters.push_back({"kjv", "d", "staged", "resident", 1, 2, 3, 16, 4, "/kjv", std::nullopt});
  const std::string table = status_table(status);
  EXPECT_THAT(table, HasSubstr("model                 tiny\n"));
  EXPECT_THAT(table, HasSubstr("serving               true\n"));
  EXPECT_THAT(table, HasSubstr("\nqueues\n  held              0\n"));
  EXPECT_THAT(table, HasSubstr("  running                   3\n"));
  EXPECT_THAT(table, HasSubstr("  decode_idle     p50 5 ns, p99 5 ns\n"));
  EXPECT_THAT(table, HasSubstr("\nranks\n  rank state pid epoch host device weight_bytes kv_block_bytes kv_blocks\n"
                               "  0    ready 12  1     host cpu    1            2              3\n"));
  EXPECT_THAT(table,
              HasSubstr("\nadapters\n  name digest host   slot_state slot leases claims rank bytes directory error\n"
                        "  kjv  d      staged resident   1    2      3      16   4     /kjv      -\n"));
}

}  // namespace
}  // namespace lorikeet::launcher
