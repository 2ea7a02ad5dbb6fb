// What the host makes of a step for the device: the order of tokens, the arrays, the portions of sampling.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/attention/attention_prefill_cuda.h"
#include "model/forward/decode_graphs.h"
#include "model/forward/sample_plan.h"
#include "model/forward/step_arrays.h"

namespace lorikeet::model {
namespace {

using ::testing::ElementsAre;

const std::vector<int32_t> kBlockTable = {5, 3, 9, 1, 7, 2, 8, 4, 6, 0};

BatchRow row_of(std::span<const int32_t> ids, int32_t start) {
  BatchRow row;
  row.token_ids = ids;
  row.start = start;
  row.block_table = kBlockTable;
  row.sample = true;
  row.sampling.temperature = 0;
  return row;
}

template <class T>
std::vector<T> values(const T* begin, int64_t count) {
  return {begin, begin + count};
}

TEST(StepBatch, PutsSingleTokensFirstAndFilteredOnesLastAmongThem) {
  const std::vector<int32_t> ids = {1, 2, 3};
  std::vector<BatchRow> rows = {row_of(ids, 0), row_of({ids.data(), 1}, 4), row_of({ids.data(), 1}, 5),
                                row_of({ids.data(), 2}, 6)};
  rows[1].sampling.temperature = 1;
  rows[1].sampling.top_k = 5;
  rows[3].slot = 2;
  const StepBatch batch(rows);
  EXPECT_THAT(batch.order, ElementsAre(2, 1, 0, 3));
  EXPECT_THAT(batch.first_tokens, ElementsAre(2, 1, 0, 5));
  EXPECT_EQ(batch.decode_rows, 2);
  EXPECT_EQ(batch.tokens, 7);
  EXPECT_EQ(batch.query_tiles, 2);
  EXPECT_TRUE(batch.adapters);
  EXPECT_FALSE(batch.decode_only());
}

TEST(StepBatch, MakesDecodeRowsOfEveryPositionWhereThatIsWantedAndFits) {
  const std::vector<int32_t> ids = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  std::vector<BatchRow> rows = {row_of({ids.data(), 8}, 4), row_of({ids.data(), 9}, 4), row_of({ids.data(), 1}, 4),
                                row_of({ids.data(), 3}, 6), row_of({ids.data(), 2}, 6)};
  for (BatchRow& row : rows) row.decode = true;
  const StepBatch batch(rows);
  EXPECT_THAT(batch.order, ElementsAre(0, 3, 4, 2, 1)) << "9 are too many";
  EXPECT_EQ(batch.decoding, 4);
  EXPECT_EQ(batch.decode_rows, 8 + 3 + 2 + 1);
  EXPECT_EQ(batch.prefill_rows(), 1);
  const StepBatch narrow(rows, 11);
  EXPECT_THAT(narrow.order, ElementsAre(0, 4, 2, 1, 3)) << "the third would be a twelfth row";
  EXPECT_EQ(narrow.decode_rows, 8 + 2 + 1);
  rows.erase(rows.begin() + 1);
  EXPECT_TRUE(StepBatch(rows).decode_only());
  rows[0].decode = false;
  EXPECT_FALSE(StepBatch(rows).decode_only());
}

TEST(StepArrays, GiveRowsOfOneSequenceOneTableAndTheirPlacesInIt) {
  const std::vector<int32_t> ids = {7, 8, 9};
  std::vector<BatchRow> rows = {row_of(ids, 15), row_of({ids.data(), 1}, 2)};
  rows[0].decode = true;
  rows[0].slot = 1;
  const StepBatch batch(rows);
  const StepSize size = StepSize::of(batch, false);
  Carver count(nullptr);
  const StepArrays sized(size, 128, count);
  std::vector<unsigned char> memory(count.used() + 1024);
  Carver carver(memory.data());
  const StepArrays arrays(size, 128, carver);
  EXPECT_EQ(write_step(batch, size, 16, kernels::DecodeDivision(40, 8, 132), arrays), 2 + 1);
  EXPECT_THAT(values(arrays.token_ids, 4), ElementsAre(7, 8, 9, 7));
  EXPECT_THAT(values(arrays.kv_slots, 4), ElementsAre(5 * 16 + 15, 3 * 16, 3 * 16 + 1, 5 * 16 + 2));
  EXPECT_THAT(values(arrays.adapter_slots, 4), ElementsAre(1, 1, 1, -1));
  EXPECT_THAT(values(arrays.decode_tokens, 4), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(values(arrays.decode_contexts, 4), ElementsAre(16, 17, 18, 3));
  EXPECT_THAT(values(arrays.decode_table_begins, 4), ElementsAre(0, 0, 0, 2));
  EXPECT_THAT(values(arrays.decode_runs, 4), ElementsAre(1, 2, 3, 1));
  EXPECT_THAT(values(arrays.block_tables, 3), ElementsAre(5, 3, 5));
  EXPECT_GT(arrays.decode_pieces[0], kernels::kDecodeRuns);
  rows[0].token_ids = {ids.data(), 1};
  write_step(StepBatch(rows), size, 16, kernels::DecodeDivision(40, 8, 132), arrays);
  EXPECT_LT(arrays.decode_pieces[0], kernels::kDecodeRuns) << "every row is of another sequence";
}

TEST(StepArrays, DescribeEveryTokenAndFillUpTheRest) {
  const std::vector<int32_t> one = {kPendingToken};
  std::vector<int32_t> many(kernels::kPrefillQueryTile + 6, 42);
  std::vector<BatchRow> rows = {row_of(many, 16), row_of(one, 17)};
  rows[1].pending_row = 3;
  rows[1].slot = 1;
  const StepBatch batch(rows);
  StepSize size = StepSize::of(batch, false);
  size.tokens += 1;
  size.decode_rows += 1;
  Carver count(nullptr);
  const StepArrays sized(size, 128, count);
  std::vector<unsigned char> memory(count.used() + 1024);
  Carver carver(memory.data());
  const StepArrays arrays(size, 128, carver);
  const kernels::DecodeDivision division(40, 8, 132);
  const int64_t entries = write_step(batch, size, 16, division, arrays);

  EXPECT_EQ(entries, 2 + 6);  // positions to 17 and to 85
  EXPECT_THAT(values(arrays.token_ids, 2), ElementsAre(~3, 42));
  EXPECT_THAT(values(arrays.positions, 3), ElementsAre(17, 16, 17));
  EXPECT_THAT(values(arrays.kv_slots, 3), ElementsAre(3 * 16 + 1, 3 * 16, 3 * 16 + 1));
  EXPECT_THAT(values(arrays.adapter_slots, 2), ElementsAre(1, -1));
  EXPECT_THAT(values(arrays.decode_tokens, 2), ElementsAre(0, 1));
  EXPECT_THAT(values(arrays.decode_contexts, 2), ElementsAre(18, 0));
  std::vector<int32_t> pieces(static_cast<size_t>(kernels::DecodeDivision::entries(2)));
  division.write(std::vector<int32_t>{18, 0}, pieces.data());
  EXPECT_EQ(values(arrays.decode_pieces, pieces[0] + 1),
            std::vector<int32_t>(pieces.begin(), pieces.begin() + pieces[0] + 1));
  EXPECT_THAT(values(arrays.prefill_first_tokens, 1), ElementsAre(1));
  EXPECT_THAT(values(arrays.prefill_counts, 1), ElementsAre(kernels::kPrefillQueryTile + 6));
  EXPECT_THAT(values(arrays.prefill_starts, 1), ElementsAre(16));
  EXPECT_THAT(values(arrays.prefill_table_begins, 1), ElementsAre(2));
  EXPECT_THAT(values(arrays.tile_rows, 2), ElementsAre(0, 0));
  EXPECT_THAT(values(arrays.tile_firsts, 2), ElementsAre(0, kernels::kPrefillQueryTile));
  EXPECT_THAT(values(arrays.block_tables, 8), ElementsAre(5, 3, 5, 3, 9, 1, 7, 2));
  const int32_t last = size.tokens - 1;
  EXPECT_EQ(arrays.token_ids[last], 0);
  EXPECT_EQ(arrays.kv_slots[last], -1);
  EXPECT_EQ(arrays.adapter_slots[last], -1);
}

TEST(SamplePlan, TakesLogitsWhereSomebodyWantsThem) {
  const std::vector<int32_t> ids = {1, 2, 3}, targets = {2, -1, 7};
  std::vector<BatchRow> rows = {row_of(ids, 0), row_of(ids, 0), row_of(ids, 0)};
  rows[0].sampling.temperature = 1;
  rows[0].sampling.min_p = 0.1F;
  rows[1].logprob_targets = targets;
  rows[1].sample = false;
  rows[2].sampling.logprobs = 4;
  rows[2].slot = 6;
  const StepBatch batch(rows);
  const auto portions = plan_samples(batch, false, {8, 100, 9, 100, 50});
  ASSERT_EQ(portions.size(), 1U);
  const SamplePortion& portion = portions[0];
  EXPECT_THAT(portion.tokens, ElementsAre(3, 5, 8, 2));  // targets, a plain draw, a filtered one
  EXPECT_THAT(portion.adapter_slots, ElementsAre(-1, -1, 6, -1));
  ASSERT_EQ(portion.draws.size(), 2U);
  EXPECT_EQ(portion.unfiltered, 1);
  EXPECT_EQ(portion.draws[0].draw_row, 2);
  EXPECT_EQ(portion.draws[0].position, 3);
  EXPECT_EQ(portion.draws[1].logits_row, 3);
  ASSERT_EQ(portion.logprobs.size(), 3U);
  EXPECT_EQ(portion.logprobs[1].token, 7);
  EXPECT_EQ(portion.logprobs[2].token, ~2);
  EXPECT_EQ(portion.logprobs[2].top, 4);
  EXPECT_EQ(portion.logprobs[2].draw_index, 0);
  EXPECT_EQ(portion.uses[1].target_index, 2);
  EXPECT_EQ(portion.stride, 4);
}

TEST(SamplePlan, CutsPortionsWhereABufferIsFull) {
  const std::vector<int32_t> one = {1}, pending = {kPendingToken};
  const std::vector<TokenCount> counts = {{1, 1, true}, {4, 0, true}, {9, 2, false}};
  std::vector<BatchRow> rows;
  for (int i = 0; i < 5; ++i) rows.push_back(row_of(one, 3));
  EXPECT_EQ(plan_samples(StepBatch(rows), true, {2, 100, 9, 100, 50}).size(), 3U) << "two rows of logits at a time";
  for (BatchRow& row : rows) {
    row.sampling.presence_penalty = 1;
    row.counts = counts;
  }
  rows[4].token_ids = pending;
  const StepBatch batch(rows);
  const auto by_counts = plan_samples(batch, true, {8, 7, 9, 100, 50});
  ASSERT_EQ(by_counts.size(), 3U);
  EXPECT_EQ(by_counts[1].draws[1].counts_begin, 3);
  EXPECT_EQ(by_counts[1].draws[1].counts_end, 6);
  EXPECT_EQ(by_counts[1].draws[1].logits_row, 3) << "a graph's logits are where their tokens are";
  EXPECT_EQ(by_counts[1].draws[1].pending, -1);
  EXPECT_EQ(by_counts[2].draws[0].pending, 4);
  EXPECT_TRUE(by_counts[0].penalties);
  for (BatchRow& row : rows) row.sampling.logprobs = 30;
  EXPECT_EQ(plan_samples(StepBatch(rows), true, {8, 100, 9, 100, 50}).size(), 3U)
      << "two lists of 30, and room for a third";
}

TEST(SamplePlan, WantsRanksAndBestTokensOfTargetsThatAskForThem) {
  const std::vector<int32_t> ids = {1, 2, 3}, targets = {2, -1, 7};
  std::vector<BatchRow> rows(2, row_of(ids, 0));
  for (BatchRow& row : rows) row.logprob_targets = targets;
  rows[1].sampling.target_top_logprobs = 3;
  const auto portions = plan_samples(StepBatch(rows), false, {8, 100, 9, 100, 50});
  ASSERT_EQ(portions.size(), 1U);
  EXPECT_TRUE(portions[0].ranked);
  EXPECT_EQ(portions[0].stride, 3);
  int ranked = 0;
  for (size_t i = 0; i < portions[0].uses.size(); ++i) {
    ranked += portions[0].uses[i].ranked;
    EXPECT_EQ(portions[0].logprobs[i].top, portions[0].uses[i].ranked ? 3 : 0);
  }
  EXPECT_EQ(ranked, 2);
  rows.pop_back();
  EXPECT_FALSE(plan_samples(StepBatch(rows), false, {8, 100, 9, 100, 50})[0].ranked);
}

TEST(SamplePlan, PutsConstraintsBehindEachOtherAndCutsWhereTheirBufferIsFull) {
  const std::vector<int32_t> ids = {1, 2};
  const std::vector<uint32_t> mask = {7, 8, 9};
  const std::vector<kernels::TokenBias> biases = {{1, 2, -1}, {5, -3, 4}};
  std::vector<BatchRow> rows(4, row_of(ids, 0));
  rows[0].constraint.allowed = mask;
  rows[1].constraint.biases = biases;
  rows[1].sampling.logprobs = 0;
  rows[3].constraint = {mask, biases};
  const StepBatch batch(rows);
  const auto portions = plan_samples(batch, false, {8, 100, 9, 100, 50});
  ASSERT_EQ(portions.size(), 1U);
  const SamplePortion& portion = portions[0];
  ASSERT_EQ(portion.constrained.size(), 3U);
  EXPECT_THAT(portion.masks, ElementsAre(7, 8, 7, 8)) << "as many words as the vocabulary of 50 has";
  EXPECT_EQ(portion.constrained[0].mask_words, 2);
  EXPECT_EQ(portion.constrained[1].mask_words, 0);
  EXPECT_EQ(portion.constrained[1].biases_end, 2);
  EXPECT_EQ(portion.constrained[1].last_token, 3);
  EXPECT_EQ(portion.constrained[2].mask_begin, 2);
  EXPECT_EQ(portion.constrained[2].biases_begin, 2);
  EXPECT_EQ(portion.constrained[2].biases_end, 4);
  EXPECT_EQ(portion.constrained[2].logits_row, 3);
  ASSERT_EQ(portion.logprobs.size(), 1U);
  EXPECT_EQ(portion.logprobs[0].constraint, 1);
  EXPECT_EQ(plan_samples(batch, false, {8, 100, 3, 100, 50}).size(), 2U);
}

TEST(SamplePlan, KeepsRoomForConstraintsThatComeLater) {
  const std::vector<int32_t> ids = {1, 2};
  const std::vector<uint32_t> mask = {7, 8, 9}, short_mask = {5};
  const std::vector<kernels::TokenBias> biases = {{1, 2, -1}, {5, -3, 4}};
  std::vector<BatchRow> rows(4, row_of(ids, 0));
  rows[0].constrained_later = true;
  rows[1].constraint.allowed = mask;
  rows[2].constrained_later = true;
  rows[2].constraint.biases = biases;
  rows[3].constrained_later = true;
  auto portions = plan_samples(StepBatch(rows), false, {8, 100, 9, 100, 50});
  ASSERT_EQ(portions.size(), 1U);
  SamplePortion& portion = portions[0];
  EXPECT_EQ(portion.masks.size(), 8U) << "two words of each row";
  const std::vector<kernels::TokenConstraint> later = {{mask, {}}, {}, {short_mask, std::span(biases).first(1)}, {}};
  portion.constrain_later(later);
  EXPECT_THAT(std::vector(portion.masks.begin(), portion.masks.begin() + 5), ElementsAre(7, 8, 7, 8, 5));
  EXPECT_EQ(portion.constrained[0].mask_words, 2);
  EXPECT_EQ(portion.constrained[1].mask_words, 2) << "as it was";
  EXPECT_EQ(portion.constrained[2].mask_begin, 4);
  EXPECT_EQ(portion.constrained[2].mask_words, 1) << "tokens past it may not be drawn";
  EXPECT_EQ(portion.constrained[2].biases_end - portion.constrained[2].biases_begin, 1);
  EXPECT_EQ(portion.constrained[3].mask_words, 0) << "nothing restrains it";
}

TEST(DecodeGraphs, HaveAClassForEveryNumberOfRows) {
  for (const int32_t most : {1, 3, 64, 100, 256, 1024}) {
    const DecodeGraphs graphs(most);
    EXPECT_EQ(graphs.classes().front(), 1);
    EXPECT_EQ(graphs.classes().back(), most);
    for (int32_t rows = 1; rows <= most; ++rows) {
      EXPECT_GE(graphs.class_of(rows), rows);
      EXPECT_LE(graphs.class_of(rows), rows + std::max(7, rows / 4));
      EXPECT_EQ(graphs.class_of(graphs.class_of(rows)), graphs.class_of(rows));
    }
  }
}

}  // namespace
}  // namespace lorikeet::model
