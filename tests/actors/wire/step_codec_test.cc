#include "actors/wire/step_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>

namespace lorikeet::actors {
namespace {

using engine::BlockId;
using engine::SequenceId;
using engine::StepPlan;
using engine::StepResult;
using ::testing::HasSubstr;

using Bytes = std::vector<uint8_t>;

constexpr uint64_t kMaxId = std::numeric_limits<uint64_t>::max();
constexpr int32_t kMax = std::numeric_limits<int32_t>::max(), kMin = std::numeric_limits<int32_t>::min();

// A step of 64 sequences that decode, long after the server's start: `apart` ids lie between neighbours at the most, and
// they are at any position up to `longest`. Every sixteenth takes a block.
StepPlan decode_step(uint64_t apart, int32_t longest) {
  std::mt19937 random(5);
  StepPlan plan;
  plan.epoch = engine::Epoch(3);
  plan.step = engine::StepId(10'000'000);
  uint64_t id = 50'000'000;
  for (int row = 0; row < 64; ++row) {
    id += 1 + random() % apart;
    const auto start = static_cast<int32_t>(random() % static_cast<uint32_t>(longest));
    plan.rows.push_back({SequenceId(id), start, 1, true});
    const auto block = static_cast<int32_t>(random() % 100'000);
    if (row % 16 == 0) plan.blocks.push_back({SequenceId(id), {BlockId(block)}});
  }
  return plan;
}

StepResult result_of(const StepPlan& plan) {
  StepResult result;
  result.epoch = plan.epoch;
  result.step = plan.step;
  result.rank = 3;
  result.times = {4'000'000'000, 500'000, true};
  for (const engine::StepRow& row : plan.rows) result.rows.push_back({row.id, 152'063, {}});
  return result;
}

struct Size {
  size_t plan = 0, result = 0;
};
Size size_of(const StepPlan& plan) {
  return {encode_plan(plan).size(), encode_result(result_of(plan)).size()};
}

// The bound of a step's bytes at 64 rows is 1.2 KB in both directions together, of which CAF, TLS and what else is around
// them take about 0.3 KB.
TEST(StepCodec, TakesFewBytesForSequencesThatCameSoonAfterEachOther) {
  const Size size = size_of(decode_step(60, 8'000));
  EXPECT_LE(size.plan, 64U * (1 + 2) + 40);
  EXPECT_LE(size.result, 64U * (1 + 3) + 25);
}

TEST(StepCodec, TakesLessThanTheBoundOfAStepWhereverTheSequencesAre) {
  const Size size = size_of(decode_step(1 << 20, 1'000'000));
  EXPECT_LE(size.plan, 64U * (4 + 3) + 50);
  EXPECT_LE(size.result, 64U * (4 + 3) + 25);
  EXPECT_LE(size.plan + size.result, 950U);
}

TEST(StepCodec, BringsPlansBack) {
  StepPlan plan = decode_step(9, 100);
  plan.finished = {SequenceId(7), SequenceId(0), SequenceId(kMaxId), SequenceId(kMaxId / 2 + 1)};
  plan.blocks.push_back({SequenceId(1), {BlockId(5), BlockId(0), BlockId(kMax), BlockId(kMin), BlockId(-1)}});
  plan.blocks.push_back({SequenceId(kMaxId), {}});
  plan.rows.push_back({SequenceId(0), kMax, kMax, true});
  plan.rows.push_back({SequenceId(kMaxId), kMin, kMin, false});
  plan.rows.push_back({SequenceId(5), 0, 0, false});
  plan.rows.push_back({SequenceId(5), kMax, 1, true});
  plan.starts.push_back({SequenceId(9), engine::SlotId(2), {1, 2, 3}, 2, {}});
  plan.starts.push_back({SequenceId(10), engine::kBaseSlot, {}, 0, {}});
  plan.starts.back().sampling.seed = kMaxId;
  const auto back = decode_plan(encode_plan(plan));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(*back, plan);
  const auto empty = decode_plan(encode_plan(StepPlan()));
  ASSERT_TRUE(empty) << empty.error().message;
  EXPECT_EQ(*empty, StepPlan());
}

TEST(StepCodec, BringsResultsBack) {
  StepResult result = result_of(decode_step(9, 100));
  result.rank = kMin;
  result.rows.push_back({SequenceId(kMaxId), engine::kAllForbidden, {{kMax, -0.5F}, {kMin, -1e30F}}});
  result.rows.push_back({SequenceId(0), engine::kNoToken, {{0, std::numeric_limits<float>::infinity()}}});
  result.prompts.push_back({1, 5, {-0.25F, -3}, {1, 9}, {{{4, -1}}, {}}});
  result.error = "a reason";
  result.times = {kMaxId, 0, false};
  result.peer_failed = true;
  const auto back = decode_result(encode_result(result));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(*back, result);
}

// Each of what a flag stands for, alone.
TEST(StepCodec, BringsResultsBackWhateverTheyLeaveOut) {
  std::vector<StepResult> results(7);
  results[1].times.idle_ns = 1;
  results[2].times.decode = true;
  results[3].error = std::string(300, 'e');
  results[4].peer_failed = true;
  results[5].rows = {{SequenceId(1), 5, {}}, {SequenceId(2), 6, {{6, -0.0F}}}};
  results[6].prompts.push_back({0, 1, {-1}});
  for (size_t i = 0; i < results.size(); ++i) {
    const auto back = decode_result(encode_result(results[i]));
    ASSERT_TRUE(back) << i << ": " << back.error().message;
    EXPECT_EQ(*back, results[i]) << i;
  }
}

TEST(StepCodec, RefusesWhatIsCutShortAnywhereOrMoreThanItSays) {
  StepPlan plan = decode_step(9, 100);
  plan.finished = {SequenceId(7)};
  StepResult result = result_of(plan);
  result.error = "a reason";
  result.rows.front().logprobs = {{5, -1}};
  const Bytes plan_bytes = encode_plan(plan), result_bytes = encode_result(result);
  for (size_t size = 0; size < plan_bytes.size(); ++size) {
    const auto got = decode_plan(std::span(plan_bytes).first(size));
    ASSERT_FALSE(got) << size;
    EXPECT_THAT(got.error().message, HasSubstr("a plan cannot be read: "));
  }
  for (size_t size = 0; size < result_bytes.size(); ++size) {
    const auto got = decode_result(std::span(result_bytes).first(size));
    ASSERT_FALSE(got) << size;
    EXPECT_THAT(got.error().message, HasSubstr("a step's result cannot be read: "));
  }
  Bytes more_plan = plan_bytes, more_result = result_bytes;
  more_plan.push_back(0);
  more_result.push_back(0);
  EXPECT_FALSE(decode_plan(more_plan));
  EXPECT_FALSE(decode_result(more_result));
}

TEST(StepCodec, CutsNoStartsOrPromptsOffUnnoticed) {
  StepPlan plan = decode_step(9, 100);
  plan.starts.push_back({SequenceId(9), engine::SlotId(2), {1, 2, 3}, 2, {}});
  const Bytes with_start = encode_plan(plan);
  plan.starts.clear();
  for (size_t size = encode_plan(plan).size() + 1; size < with_start.size(); ++size) {
    EXPECT_FALSE(decode_plan(std::span(with_start).first(size))) << size;
  }
  StepResult result;
  result.prompts.push_back({0, 1, {-1}});
  const Bytes with_prompt = encode_result(result);
  for (size_t size = 0; size < with_prompt.size(); ++size) {
    EXPECT_FALSE(decode_result(std::span(with_prompt).first(size))) << size;
  }
}

std::string refusal_of_plan(const Bytes& behind_version) {
  Bytes bytes{kStepCodecVersion};
  bytes.insert(bytes.end(), behind_version.begin(), behind_version.end());
  const auto plan = decode_plan(bytes);
  return plan ? "" : plan.error().message;
}
std::string refusal_of_result(const Bytes& behind_version) {
  Bytes bytes{kStepCodecVersion};
  bytes.insert(bytes.end(), behind_version.begin(), behind_version.end());
  const auto result = decode_result(bytes);
  return result ? "" : result.error().message;
}
Bytes joined(std::initializer_list<Bytes> parts) {
  Bytes all;
  for (const Bytes& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

// The largest numbers of ten bytes, one that is larger, and one that never ends.
const Bytes kHuge = {0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01};
const Bytes kTooLarge = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02};
const Bytes kEndless(200, 0xFF);

// epoch, step, finished, appends, rows
TEST(StepCodec, RefusesForgedPlans) {
  EXPECT_EQ(refusal_of_plan({1, 1, 1, 2, 1, 2, 1, 2, 1, 1, 6, 2, 0}), "") << "this one is right";
  const std::string numbers = "or hold a number that is too large";
  EXPECT_THAT(refusal_of_plan(kEndless), HasSubstr(numbers));
  EXPECT_THAT(refusal_of_plan(joined({kTooLarge, {1, 0, 0, 0}})), HasSubstr(numbers));
  EXPECT_EQ(refusal_of_plan(joined({kHuge, kHuge, {0, 0, 0}})), "") << "any number is an epoch";
  EXPECT_THAT(refusal_of_plan(joined({{1, 1}, kHuge, {0, 0}})), HasSubstr(numbers)) << "more ended than bytes";
  EXPECT_THAT(refusal_of_plan(joined({{1, 1, 0}, kHuge, {0}})), HasSubstr(numbers)) << "more appends than bytes";
  EXPECT_THAT(refusal_of_plan(joined({{1, 1, 0, 1, 2}, kHuge, {0}})), HasSubstr(numbers)) << "more blocks than bytes";
  EXPECT_THAT(refusal_of_plan(joined({{1, 1, 0, 1, 2, 1}, kHuge, {0}})), HasSubstr(numbers)) << "no block has this id";
  EXPECT_THAT(refusal_of_plan(joined({{1, 1, 0, 0}, kHuge})), HasSubstr(numbers)) << "more rows than bytes";
  EXPECT_THAT(refusal_of_plan({1, 1, 0, 0, 2, 0, 6, 2, 0, 2, 0}), HasSubstr("a run of 0 rows where 2 are left"));
  EXPECT_THAT(refusal_of_plan({1, 1, 0, 0, 2, 3, 6, 2, 0, 2, 0}), HasSubstr("a run of 3 rows where 2 are left"));
  EXPECT_THAT(refusal_of_plan(joined({{1, 1, 0, 0, 1, 1}, kHuge, {2, 0}})), HasSubstr("a row of"));
  EXPECT_THAT(refusal_of_plan(joined({{1, 1, 0, 0, 1, 1, 6, 2}, kHuge})), HasSubstr(numbers)) << "no such position";
  EXPECT_THAT(refusal_of_plan({1, 1, 0, 0, 0, 9}), HasSubstr("encoding version 9")) << "of the starts";
}

// epoch, step, rank, flags, rows
TEST(StepCodec, RefusesForgedResults) {
  EXPECT_EQ(refusal_of_result({1, 1, 0, 0, 1, 2, 8}), "") << "this one is right";
  const std::string numbers = "or hold a number that is too large";
  EXPECT_THAT(refusal_of_result(kEndless), HasSubstr(numbers));
  EXPECT_THAT(refusal_of_result(joined({{1, 1}, kHuge, {0, 0}})), HasSubstr(numbers)) << "no rank has this number";
  EXPECT_THAT(refusal_of_result({1, 1, 0, 64, 0}), HasSubstr("flags 0x40"));
  EXPECT_THAT(refusal_of_result(joined({{1, 1, 0, 4}, kHuge, {0}})), HasSubstr(numbers)) << "more error than bytes";
  EXPECT_THAT(refusal_of_result(joined({{1, 1, 0, 0}, kHuge})), HasSubstr(numbers)) << "more rows than bytes";
  EXPECT_THAT(refusal_of_result(joined({{1, 1, 0, 0, 1, 2}, kHuge})), HasSubstr(numbers)) << "no such token";
  EXPECT_THAT(refusal_of_result({1, 1, 0, 16, 1, 2, 8, 1, 8, 0, 0, 0}), HasSubstr(numbers)) << "three bytes of a float";
  EXPECT_THAT(refusal_of_result({1, 1, 0, 0, 0, 7, 7}), HasSubstr("2 bytes too many"));
  EXPECT_THAT(refusal_of_result({1, 1, 0, 32, 0}), HasSubstr("no bytes")) << "where the prompts should be";
}

TEST(StepCodec, RefusesMoreRowsThanAStepHas) {
  Bytes bytes{kStepCodecVersion, 1, 1, 0, 0, 0x81, 0x80, 0x40};  // kMaxStepItems and one more
  static_assert(kMaxStepItems == 1 << 20);
  bytes.resize(bytes.size() + 2 * (kMaxStepItems + 1), 2);
  EXPECT_FALSE(decode_result(bytes));
  bytes[5] = 0x80;
  bytes.resize(bytes.size() - 2);
  const auto result = decode_result(bytes);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->rows.size(), kMaxStepItems);
}

TEST(StepCodec, RefusesAnotherVersion) {
  Bytes plan = encode_plan(StepPlan()), result = encode_result(StepResult());
  plan[0] = result[0] = 1;
  EXPECT_EQ(decode_plan(plan).error().message, "a plan cannot be read: version 1 of steps where 2 was expected");
  EXPECT_EQ(decode_result(result).error().message,
            "a step's result cannot be read: version 1 of steps where 2 was expected");
}

}  // namespace
}  // namespace lorikeet::actors
