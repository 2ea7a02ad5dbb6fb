// Random histories of a server whose ranks die, come back and lie: no result brings the head down, every request ends
// once with the tokens that it would have got alone, and nothing is left behind.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "actors/wire/step_codec.h"
#include "tests/actors/head/serving_core_harness.h"

namespace lorikeet::actors {
namespace {

using engine::StepResult;
using Id = ServingCore::Id;

class RandomServer {
 public:
  explicit RandomServer(uint64_t seed) : random_(seed) { server_.form(); }

  void run(int num_events) {
    for (int i = 0; i < num_events && !::testing::Test::HasFailure(); ++i) happen();
    // To the end, without further trouble but for lies that come out late.
    for (int i = 0; i < 5; ++i) {
      if (server_.core.group().lost()) server_.start_epoch();
      if (!server_.core.group().serving()) server_.form();
      while (!results_.empty()) deliver();
      server_.run();
      if (server_.core.group().serving()) break;
    }
    server_.expect_nothing_left();
  }

  int lies = 0, losses = 0;
  const ServingCoreHarness& server() const { return server_; }

 private:
  struct Said {
    int32_t rank;
    StepResult result;
    bool lie;
  };

  // The same with every standard library, unlike its distributions.
  int32_t draw(int32_t low, int32_t high) {
    return low + static_cast<int32_t>(random_() % static_cast<uint64_t>(high - low + 1));
  }

  void happen() {
    const RankGroup& group = server_.core.group();
    switch (draw(0, 12)) {
      case 0:
        submit();
        break;
      case 1:
        server_.cancel(Id(static_cast<uint64_t>(draw(1, static_cast<int32_t>(server_.clients.size()) + 2))));
        break;
      case 2:
        if (!server_.resolving.empty()) server_.resolve(server_.resolving.begin()->first, draw(0, 19) ? "" : "no file");
        break;
      case 3:
        if (!server_.acquiring.empty() && group.serving()) server_.grant(draw(0, 19) ? "" : "no memory");
        break;
      case 4:
        if (draw(0, 9) == 0) lose();
        break;
      case 5:
        if (group.lost()) server_.start_epoch();
        break;
      case 6:
        if (!group.serving() && !group.lost()) server_.form(draw(8, 24));
        break;
      case 7:
      case 8:
      case 9:
        execute(draw(0, 1));
        break;
      case 10:
        if (!server_.compiling.empty() && group.serving()) server_.compile(draw(0, 19) ? "" : "no memory");
        break;
      default:
        deliver();
        break;
    }
  }

  void submit() {
    std::vector<int32_t> prompt(static_cast<size_t>(draw(1, 12)));
    for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>(i) * 7 % 11;
    prompt.back() = draw(0, 49);
    if (draw(0, 2) == 0) server_.next_grammar = draw(0, 1) ? "a+" : "b+";
    const Id id = server_.submit(prompt, draw(1, 14), draw(0, 1) ? "" : draw(0, 1) ? "moby" : "kjv", draw(0, 4) == 0);
    if (draw(0, 9) == 0) server_.diverge(id, draw(1, 20));
  }

  void lose() {
    server_.lose();
    results_.clear();
  }

  void execute(int32_t rank) {
    if (!server_.core.group().serving() || !server_.can_execute(rank)) return;
    Said said{rank, server_.execute(rank), false};
    if (draw(0, 29) == 0) {
      const StepResult right = said.result;
      lie(said.result);
      said.lie = !(said.result == right);
      lies += said.lie;
    }
    results_.push_back(std::move(said));
  }

  void deliver() {
    if (results_.empty()) return;
    Said said = std::move(results_.front());
    results_.pop_front();
    const bool serving = server_.core.group().serving();
    server_.say(said.rank, std::move(said.result));
    if (serving && server_.core.group().lost()) {
      EXPECT_TRUE(said.lie || has_lied_) << server_.lost->loss.why;
      has_lied_ = false;
      ++losses;
      results_.clear();
    } else {
      has_lied_ |= said.lie;
    }
  }

  // As a rank with a broken memory might: a field is changed, or any bit of the message.
  void lie(StepResult& result) {
    if (draw(0, 1) == 0) return flip_bits(result);
    constexpr int32_t kOdd[] = {-2147483647, -2, -1, 0, 3, 49, 50, 2147483647};
    const int32_t value = kOdd[draw(0, 7)];
    const int32_t field = draw(0, 9);
    if (field == 0) result.epoch = engine::Epoch(static_cast<uint64_t>(value));
    if (field == 1) result.step = engine::StepId(static_cast<uint64_t>(value));
    if (field == 2) result.error = "out of memory";
    if (field == 3) result.rows.resize(static_cast<size_t>(draw(0, 6)));
    if (result.rows.empty()) return;
    engine::RowResult& row = result.rows[static_cast<size_t>(draw(0, static_cast<int32_t>(result.rows.size()) - 1))];
    if (field == 4) row.id = Id(static_cast<uint64_t>(value));
    if (field == 5) row.token_id = value;
    if (field == 6) row.logprobs = {{value, std::nanf("")}};
    if (field == 7 && !result.prompts.empty()) result.prompts.front().start = value;
    if (field == 8) result.prompts.push_back({value, 1, {-1}});
    if (field == 9) std::swap(row, result.rows.front());
  }

  void flip_bits(StepResult& result) {
    std::vector<uint8_t> bytes = encode_result(result);
    for (int32_t i = draw(1, 4); i > 0; --i) {
      bytes[static_cast<size_t>(draw(0, static_cast<int32_t>(bytes.size()) - 1))] ^=
          static_cast<uint8_t>(1 << draw(0, 7));
    }
    if (auto decoded = decode_result(bytes)) result = *std::move(decoded);
  }

  std::mt19937_64 random_;
  ServingCoreHarness server_;
  std::deque<Said> results_;
  bool has_lied_ = false;  // a lie was taken that only the other rank's answer can show
};

TEST(ServingCoreProperties, HoldInRandomHistories) {
  int lies = 0, losses = 0, finished = 0;
  uint64_t resumptions = 0;
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    RandomServer server(seed);
    server.run(700);
    ASSERT_FALSE(HasFailure());
    lies += server.lies;
    losses += server.losses;
    resumptions += server.server().core.engine_stats()->resumptions;
    for (const auto& [id, client] : server.server().clients) {
      finished += client.finish && *client.finish != engine::FinishReason::abort;
    }
  }
  // The histories reach what they are meant to try.
  EXPECT_GT(lies, 300);
  EXPECT_GT(losses, 150);
  EXPECT_GT(resumptions, 300u);
  EXPECT_GT(finished, 1000);
}

}  // namespace
}  // namespace lorikeet::actors
