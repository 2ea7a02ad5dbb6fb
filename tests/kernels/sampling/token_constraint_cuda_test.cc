#include "kernels/sampling/token_constraint_cuda.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/sampling/logprobs_cuda.h"
#include "tests/kernels/base/cuda_test.h"

namespace lorikeet::kernels {
namespace {

class TokenConstraintCuda : public CudaTest {
 protected:
  std::mt19937 random_{17};
};

// Rows with masks, with biases, with both, and one without; over parts of the vocabulary.
TEST_F(TokenConstraintCuda, ChangesTheLogitsAsTheCpuDoesAndKeepsWhatStoodThere) {
  for (const int32_t vocab : sizes({70, 5000, 152064}, {70, 5000})) {
    const auto words = static_cast<size_t>(mask_words(vocab));
    std::vector<uint32_t> masks(2 * words);
    for (uint32_t& word : masks) word = static_cast<uint32_t>(random_());
    std::vector<TokenBias> biases;
    for (int32_t token = 1; token < vocab; token += 1 + token / 8) {
      biases.push_back({token, static_cast<float>(token % 13) - 6, -1});
      if (token % 3 == 0) biases.push_back({token, -INFINITY, token % 2 == 0 ? 5 : 6});
      if (token % 5 == 0) biases.push_back({token, -INFINITY, -1});
    }
    const auto all = static_cast<int32_t>(biases.size());
    const auto of_mask = static_cast<int32_t>(words);
    const std::vector<ConstrainedRow> rows = {
        {0, 0, of_mask, 0, 0, 0}, {1, 0, 0, 0, all, 1}, {3, of_mask, of_mask, 0, all, 2}};
    const std::vector<int32_t> resolved = {4, 5, 6};
    for (const int32_t begin : {0, vocab / 3}) {
      const int32_t size = vocab - begin;
      const auto columns = static_cast<size_t>(size);
      const std::vector<float> before = random_floats(4 * columns, random_, 3);
      const DeviceBuffer logits = to_device(before);
      const DeviceBuffer device_rows = to_device(rows), device_masks = to_device(masks),
                         device_biases = to_device(biases);
      const DeviceBuffer ids = to_device(resolved), saved = poisoned(biases.size() * sizeof(float));
      constrain_logits_cuda({{logits.as<float>(), size, begin, size},
                             device_rows.as<ConstrainedRow>(),
                             3,
                             device_masks.as<uint32_t>(),
                             device_biases.as<TokenBias>(),
                             ids.as<int32_t>(),
                             saved.as<float>()},
                            stream_);
      std::vector<float> expected = before;
      const std::span<const uint32_t> of_rows(masks);
      constrain_logits_cpu(expected.data(), size, begin, {of_rows.first(words), {}}, 4);
      constrain_logits_cpu(expected.data() + columns, size, begin, {{}, biases}, 5);
      constrain_logits_cpu(expected.data() + 3 * columns, size, begin, {of_rows.last(words), biases}, 6);
      const std::vector<float> changed = to_host<float>(logits);
      for (size_t i = 0; i < expected.size(); i++) {
        ASSERT_EQ(std::isnan(changed[i]), std::isnan(expected[i])) << "vocabulary " << vocab << ", " << i;
        if (std::isnan(expected[i])) continue;
        ASSERT_EQ(changed[i], expected[i]) << "vocabulary " << vocab << ", " << i;
      }
    }
  }
}

TEST_F(TokenConstraintCuda, ReportsTheLogitFromBeforeConstraintAndPenalties) {
  const std::vector<float> before = {1, 2, 3, 4, 5, 6};
  const std::vector<TokenBias> biases = {{1, 10, -1}, {4, -1, -1}};
  const std::vector<DeviceTokenCount> counts = {{1, 2, 0}, {2, 1, 0}};
  const std::vector<int32_t> resolved = {0};
  const std::vector<ConstrainedRow> constrained = {{0, 0, 0, 0, 2, 0}};
  DrawRow draw;
  draw.draw_row = 0;
  draw.presence_penalty = 0.5F;
  draw.counts_end = 2;
  const DeviceBuffer device_biases = to_device(biases), device_counts = to_device(counts), ids = to_device(resolved);
  const DeviceBuffer rows = to_device(constrained), draws = to_device(std::vector<DrawRow>{draw});
  const DeviceBuffer lists = to_device(std::vector<LogprobRow>{{0, 0, ~0, 0, 0}});
  for (int32_t token = 0; token < 6; token++) {
    const DeviceBuffer logits = to_device(before), drawn = to_device(std::vector<int32_t>{token});
    const DeviceBuffer saved = poisoned(3 * sizeof(float)), saved_of_biases = poisoned(2 * sizeof(float));
    const DeviceBuffer statistics = poisoned(sizeof(LogitStatistics));
    const LogitsShard shard = {logits.as<float>(), 6, 0, 6};
    constrain_logits_cuda({shard, rows.as<ConstrainedRow>(), 1, nullptr, device_biases.as<TokenBias>(),
                           ids.as<int32_t>(), saved_of_biases.as<float>()},
                          stream_);
    apply_penalties_cuda(
        {shard, draws.as<DrawRow>(), 1, device_counts.as<DeviceTokenCount>(), 2, ids.as<int32_t>(), saved.as<float>()},
        stream_);
    TokenLogitArgs args;
    args.shard = shard;
    args.rows = lists.as<LogprobRow>();
    args.num_rows = 1;
    args.drawn = drawn.as<int32_t>();
    args.statistics = statistics.as<LogitStatistics>();
    args.draw_rows = draws.as<DrawRow>();
    args.counts = device_counts.as<DeviceTokenCount>();
    args.num_counts = 2;
    args.resolved = ids.as<int32_t>();
    args.saved = saved.as<float>();
    args.constrained = rows.as<ConstrainedRow>();
    args.biases = device_biases.as<TokenBias>();
    args.saved_of_biases = saved_of_biases.as<float>();
    token_logits_cuda(args, stream_);
    EXPECT_EQ(to_host<LogitStatistics>(statistics)[0].logit, before[static_cast<size_t>(token)]) << token;
  }
}

}  // namespace
}  // namespace lorikeet::kernels
