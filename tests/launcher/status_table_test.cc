#include "launcher/status_table.h"

#include <gtest/gtest.h>

namespace lorikeet::launcher {
namespace {

TEST(StatusTable, ShowsArraysAsTablesAndObjectsAsLines) {
  const auto status = nlohmann::ordered_json::parse(
      R"({"model": "tiny", "ranks": [{"rank": 0, "state": "ready"}, {"rank": 1, "state": "loading", "layer": 3}],
          "engine": {"waiting": 2, "running": 10}, "adapters": []})");
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

}  // namespace
}  // namespace lorikeet::launcher
