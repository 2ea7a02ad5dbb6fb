#include "kernels/sampling/logprobs_cuda.h"

#include <algorithm>

#include "tests/kernels/base/cuda_test.h"

namespace lorikeet::kernels {
namespace {

class LogprobsCuda : public CudaTest {
 protected:
  LogitsShard shard_of(const DeviceBuffer& logits, int64_t stride, int32_t begin, int32_t size) {
    return {logits.as<float>(), stride, begin, size};
  }

  std::mt19937 random_{8};
};

TEST_F(LogprobsCuda, StatisticsGiveTheLogarithmOfTheSumOfExponentials) {
  for (const int32_t vocab : sizes({1, 100, 4096, 4097, 151936}, {1, 4096, 4097, 20000})) {
    const int64_t stride = vocab + 3;
    const int32_t rows = 5;
    std::vector<float> logits = random_floats(static_cast<size_t>(rows * stride), random_, 5, -20);
    logits[static_cast<size_t>(stride * 2)] = NAN;  // counts as impossible
    logits[static_cast<size_t>(stride * 3)] = -INFINITY;
    if (vocab == 1) logits[static_cast<size_t>(stride * 2)] = logits[static_cast<size_t>(stride * 3)] = 7;
    const std::vector<LogprobRow> wanted = {{4, 0, 0, -1}, {0, 0, 0, -1}, {2, 0, 0, -1}, {3, 0, 0, -1}};
    const DeviceBuffer device_logits = to_device(logits);
    const DeviceBuffer device_rows = to_device(wanted);
    const DeviceBuffer statistics = poisoned(wanted.size() * sizeof(LogitStatistics));
    const DeviceBuffer workspace = zeroed(logit_statistics_workspace(8, vocab));
    LogprobArgs args;
    args.shard = shard_of(device_logits, stride, 0, vocab);
    args.rows = device_rows.as<LogprobRow>();
    args.num_rows = static_cast<int32_t>(wanted.size());
    args.statistics = statistics.as<LogitStatistics>();
    args.workspace = workspace.data();
    args.workspace_rows = 8;
    for (int repeat = 0; repeat < 2; repeat++) {  // the workspace is left as it was found
      logit_statistics_cuda(args, stream_);
      const std::vector<LogitStatistics> result = to_host<LogitStatistics>(statistics);
      std::vector<float> actual;
      std::vector<double> expected;
      for (size_t i = 0; i < wanted.size(); i++) {
        const float* row = &logits[static_cast<size_t>(wanted[i].logits_row * stride)];
        double sum = 0;
        for (int32_t v = 0; v < vocab; v++) sum += std::isnan(row[v]) ? 0 : std::exp(static_cast<double>(row[v]));
        expected.push_back(std::log(sum));
        actual.push_back(result[i].largest + std::log(result[i].sum));
      }
      EXPECT_TRUE(near_reference(actual, expected, tests::kFloat32Tolerance)) << "vocabulary " << vocab;
    }
  }
}

TEST_F(LogprobsCuda, TopTokensAreTheBestWithTiesToTheLowerId) {
  for (const int32_t vocab : sizes({3, 700, 20000, 152064}, {3, 700, 20000})) {
    for (const int kind : {0, 1, 2, 3}) {
      const bool coarse = kind % 2 == 1;            // many ties
      const bool after_statistics = kind / 2 == 1;  // which have found the cut of short lists
      const int32_t begin = 1000;
      std::vector<float> logits = random_floats(static_cast<size_t>(2 * vocab), random_, 4);
      if (coarse) {
        for (float& x : logits) x = std::round(x / 4);
      }
      const std::vector<int32_t> tops = {1, 5, 20, after_statistics ? 30 : 333, 0};
      std::vector<LogprobRow> wanted;
      for (const int32_t top : tops) wanted.push_back({1, top, 0, -1});
      const int32_t stride = after_statistics ? 32 : 400;
      const DeviceBuffer device_logits = to_device(logits);
      const DeviceBuffer device_rows = to_device(wanted);
      const DeviceBuffer best = poisoned(wanted.size() * stride * sizeof(Candidate));
      const DeviceBuffer workspace = zeroed(vocab_cut_workspace(vocab));
      TopTokensArgs args;
      args.shard = shard_of(device_logits, vocab, begin, vocab);
      args.rows = device_rows.as<LogprobRow>();
      args.num_rows = static_cast<int32_t>(wanted.size());
      args.best = best.as<Candidate>();
      args.stride = stride;
      args.workspace = workspace.data();
      const DeviceBuffer statistics = poisoned(wanted.size() * sizeof(LogitStatistics));
      const DeviceBuffer statistics_workspace = zeroed(logit_statistics_workspace(8, vocab));
      if (after_statistics) {
        LogprobArgs before;
        before.shard = args.shard;
        before.rows = args.rows;
        before.num_rows = args.num_rows;
        before.statistics = statistics.as<LogitStatistics>();
        before.workspace = args.statistics = statistics_workspace.data();
        before.workspace_rows = args.statistics_rows = 8;
        logit_statistics_cuda(before, stream_);
      }
      top_tokens_cuda(args, stream_);
      std::vector<std::pair<float, int32_t>> expected;
      for (int32_t v = 0; v < vocab; v++) expected.emplace_back(-logits[static_cast<size_t>(vocab + v)], begin + v);
      std::sort(expected.begin(), expected.end());
      const std::vector<Candidate> result = to_host<Candidate>(best);
      for (size_t i = 0; i < tops.size(); i++) {
        const auto count = static_cast<size_t>(std::min(tops[i], vocab));
        std::vector<std::pair<float, int32_t>> found;
        for (size_t j = 0; j < count; j++) {
          const Candidate& c = result[i * stride + j];
          found.emplace_back(-c.value, c.token_id);
        }
        std::sort(found.begin(), found.end());
        EXPECT_EQ(found, std::vector(expected.begin(), expected.begin() + static_cast<int64_t>(count)))
            << "top " << tops[i] << " of " << vocab;
      }
    }
  }
}

TEST_F(LogprobsCuda, TokenLogitsAreThoseFromBeforeThePenalties) {
  const int32_t vocab = 50;
  const int32_t begin = 100;
  const std::vector<float> logits = random_floats(size_t{2} * vocab, random_);
  DrawRow draw;
  draw.logits_row = 0;
  draw.draw_row = 0;
  draw.repetition_penalty = 1.5F;
  draw.frequency_penalty = 0.5F;
  draw.counts_begin = 0;
  draw.counts_end = 3;
  draw.pending = 0;
  const std::vector<DeviceTokenCount> counts = {{5, 1, 0}, {110, 2, 1}, {130, 0, 1}};
  const std::vector<int32_t> resolved = {140};
  const DeviceBuffer device_logits = to_device(logits);
  const DeviceBuffer device_draws = to_device(std::vector<DrawRow>{draw});
  const DeviceBuffer device_counts = to_device(counts);
  const DeviceBuffer device_resolved = to_device(resolved);
  const DeviceBuffer saved = poisoned((counts.size() + 1) * 4);
  PenaltyArgs penalties;
  penalties.shard = shard_of(device_logits, vocab, begin, vocab);
  penalties.rows = device_draws.as<DrawRow>();
  penalties.num_rows = 1;
  penalties.counts = device_counts.as<DeviceTokenCount>();
  penalties.num_counts = 3;
  penalties.resolved = device_resolved.as<int32_t>();
  penalties.saved = saved.as<float>();
  apply_penalties_cuda(penalties, stream_);

  const std::vector<int32_t> drawn = {130};
  const DeviceBuffer device_drawn = to_device(drawn);
  const std::vector<LogprobRow> wanted = {{0, 0, 110, 0}, {0, 0, ~0, 0},   {0, 0, 140, 0},
                                          {0, 0, 149, 0}, {1, 0, 110, -1}, {0, 0, 5, 0}};
  const DeviceBuffer device_rows = to_device(wanted);
  const DeviceBuffer statistics = poisoned(wanted.size() * sizeof(LogitStatistics));
  TokenLogitArgs args;
  args.shard = penalties.shard;
  args.rows = device_rows.as<LogprobRow>();
  args.num_rows = static_cast<int32_t>(wanted.size());
  args.drawn = device_drawn.as<int32_t>();
  args.statistics = statistics.as<LogitStatistics>();
  args.draw_rows = penalties.rows;
  args.counts = penalties.counts;
  args.num_counts = 3;
  args.resolved = penalties.resolved;
  args.saved = penalties.saved;
  token_logits_cuda(args, stream_);
  const std::vector<LogitStatistics> result = to_host<LogitStatistics>(statistics);
  EXPECT_EQ(result[0].logit, logits[10]);
  EXPECT_EQ(result[1].logit, logits[30]);
  EXPECT_EQ(result[2].logit, logits[40]);
  EXPECT_EQ(result[3].logit, logits[49]);
  EXPECT_EQ(result[4].logit, logits[vocab + 10]);
  EXPECT_EQ(result[5].logit, -INFINITY) << "another rank has it";
}

TEST_F(LogprobsCuda, CountTheTokensOfAPartThatAreAtLeastAsGood) {
  for (const int32_t vocab : sizes({1, 100, 4097, 151936}, {100, 4097})) {
    const int64_t stride = vocab + 3;
    std::vector<float> logits = random_floats(static_cast<size_t>(3 * stride), random_, 5, -20);
    logits[static_cast<size_t>(stride)] = NAN;
    const std::vector<LogprobRow> wanted = {{2, 0, 0}, {0, 0, 0}, {1, 0, 0}};
    // The token's logit comes from the second of two ranks; the first row's stands in this part, too.
    std::vector<LogitStatistics> statistics(6, {0, 0, -INFINITY});
    statistics[3].logit = logits[static_cast<size_t>(2 * stride + vocab / 2)];
    statistics[4].logit = 0;
    statistics[5].logit = -1;
    const DeviceBuffer device_logits = to_device(logits), rows = to_device(wanted), of_ranks = to_device(statistics);
    const DeviceBuffer counts = poisoned(3 * sizeof(int32_t));
    count_at_least_cuda({shard_of(device_logits, stride, 7, vocab), rows.as<LogprobRow>(), 3,
                         of_ranks.as<LogitStatistics>(), 2, counts.as<int32_t>()},
                        stream_);
    std::vector<int32_t> expected;
    for (size_t i = 0; i < wanted.size(); i++) {
      const auto begin = logits.begin() + wanted[i].logits_row * stride;
      expected.push_back(static_cast<int32_t>(
          std::count_if(begin, begin + vocab, [&](float x) { return x >= statistics[3 + i].logit; })));
    }
    EXPECT_EQ(to_host<int32_t>(counts), expected) << "vocabulary " << vocab;
  }
}

}  // namespace
}  // namespace lorikeet::kernels
