#include "launcher/status_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace lorikeet::launcher {
namespace {

using testing::HasSubstr;
using testing::Not;

actors::ServerStatus busy_status() {
  actors::ServerStatus status;
  status.model = "tiny";
  status.max_model_len = 2048;
  status.serving.serving = true;
  status.serving.epoch = 2;
  status.serving.zmq = "tcp://127.0.0.1:5555";
  status.serving.kv_cache_tokens = 65536;
  engine::EngineStats& stats = status.serving.engine.stats;
  stats.running = 3;
  stats.waiting = 1200;
  stats.preempted = 2;
  stats.blocks_total = 4096;
  stats.blocks_free = 1024;
  stats.generated_tokens = 5000;
  stats.prompt_tokens = 10000;
  stats.resumptions = 6;
  status.serving.steps.decode_steps = 2;
  status.serving.steps.decode_ns = 4'200'000;
  status.serving.steps.decode_idle.add(5);
  status.serving.ranks.push_back({0, "ready", 12, 2, "host", "cpu", 3ULL << 30, 1 << 18, 4096});
  status.adapters.staged_bytes = 12 << 20;
  status.adapters.adapters.push_back({"far", "d", "on_disk", "none", std::nullopt, 0, 0, 0, 0, "/far", std::nullopt});
  status.adapters.adapters.push_back({"kjv", "d", "staged", "resident", 1, 2, 3, 16, 4 << 20, "/kjv", std::nullopt});
  return status;
}

TEST(StatusView, ShowsUnitsPercentilesAndRestarts) {
  const std::string view = status_view(busy_status(), std::nullopt, Terminal{});
  EXPECT_THAT(view, HasSubstr("model       tiny, context of 2,048 tokens\n"));
  EXPECT_THAT(view, HasSubstr("requests    3 running, 1,200 waiting (2 of them preempted)\n"));
  EXPECT_THAT(view, HasSubstr("tokens      5,000 generated, 10,000 of prompts\n"));
  EXPECT_THAT(view, HasSubstr("KV cache    75.0 % of 65,536 tokens in use\n"));
  EXPECT_THAT(view, HasSubstr("steps       2 decode steps of 2.10 ms\n"));
  EXPECT_THAT(view, HasSubstr("idle        before one p50 5 ns, p90 5 ns, p99 5 ns\n"));
  EXPECT_THAT(view, HasSubstr("restarts    1; 6 sequences went on after one\n"));
  EXPECT_THAT(view, HasSubstr("  cpu        0  ready   12  host  3.00 GiB  1.00 GiB\n"));
  EXPECT_THAT(view, Not(HasSubstr("tokens/s"))) << "nothing is known of the time before";
}

TEST(StatusView, ShowsAdaptersInUseFirst) {
  EXPECT_THAT(status_view(busy_status(), std::nullopt, Terminal{}),
              HasSubstr("\nadapters    2; 1 in slots, 12.0 MiB in the head's memory\n"
                        "  name  tier  slot  rank      size  running  wanted\n"
                        "  kjv   slot     1    16  4.00 MiB        2       3\n"
                        "  far   disk     -     -         -        0       0\n"));
}

TEST(StatusView, ShowsPausesAndWhatAdaptersAre) {
  actors::ServerStatus status = busy_status();
  status.serving.pauses.ended = 2;
  status.serving.pauses.total_us = 5'000'000;
  status.serving.last_pauses.emplace_back();
  status.serving.last_pauses.back().why = "rank 1 was killed by signal 9";
  status.serving.last_pauses.back().total_us = 1'250'000;
  status.adapters.adapters[1].pinned = true;
  const std::string view = status_view(status, std::nullopt, Terminal{});
  EXPECT_THAT(view, HasSubstr("pauses      2, 2.50 s on average; the last 1.25 s: rank 1 was killed by"));
  EXPECT_THAT(view, HasSubstr("        2       3  pinned\n"));
}

TEST(StatusView, ShowsRatesSinceTheLastLook) {
  EarlierStatus earlier{busy_status(), 2.0};
  actors::ServerStatus now = busy_status();
  now.serving.engine.stats.generated_tokens += 700;
  EXPECT_THAT(status_view(now, earlier, Terminal{}),
              HasSubstr("rate        350 tokens/s generated, 0.00 of prompts, in the last 2.00 s\n"));
  now.serving.engine.stats.generated_tokens = 0;  // of a new server
  EXPECT_THAT(status_view(now, earlier, Terminal{}), HasSubstr("rate        0.00 tokens/s generated"));
}

TEST(StatusView, Fits80ColumnsWhateverTheNames) {
  actors::ServerStatus status = busy_status();
  for (int i = 0; i < 100; ++i) {
    status.adapters.adapters.push_back({"adapter-" + std::string(60, 'x') + std::to_string(i), "digest", "staged",
                                        "none", std::nullopt, 0, 0, 16, 4, "/dir", std::nullopt});
  }
  status.adapters.adapters[2].error = "/a/very/long/path/of/an/adapter/that/is/not/there: there is no such directory " +
                                      std::string("at all, and nobody knows where it went");
  const std::string view = status_view(status, std::nullopt, Terminal{});
  std::istringstream lines(view);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(text_width(line), 80u) << line;
  EXPECT_THAT(view, HasSubstr("and 70 more; --json has all\n"));
}

}  // namespace
}  // namespace lorikeet::launcher
