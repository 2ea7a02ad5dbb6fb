#include "kernels/sampling/sampling_cuda.h"

#include <algorithm>

#include "kernels/sampling/sampling.h"
#include "tests/kernels/sampling/sampling_cuda_fixture.h"

namespace lorikeet::kernels {
namespace {

TEST_F(SamplingCuda, DrawsGreedilyWithTiesToTheLowerId) {
  for (const int32_t vocab : sizes({10, 2048, 151936}, {10, 20000})) {
    std::vector<std::vector<float>> logits = random_logits(6, vocab, 3);
    for (float& x : logits[1]) x = 2;  // all tie
    logits[2][7] = logits[2][static_cast<size_t>(vocab) - 1] = 50;
    for (float& x : logits[3]) x = -INFINITY;
    logits[4][3] = NAN;
    std::vector<DrawRow> rows;
    for (int32_t i = 0; i < 6; i++) rows.push_back(row_of(i, 0));
    for (const int ranks : {1, 3}) {
      const std::vector<int32_t> drawn = draw(logits, rows, ranks);
      EXPECT_EQ(drawn[0], std::max_element(logits[0].begin(), logits[0].end()) - logits[0].begin());
      EXPECT_EQ(drawn[1], 0);
      EXPECT_EQ(drawn[2], 7);
      EXPECT_EQ(drawn[3], 0);
      std::vector<float> cleaned = logits[4];
      cleaned[3] = -INFINITY;
      EXPECT_EQ(drawn[4], std::max_element(cleaned.begin(), cleaned.end()) - cleaned.begin());
    }
  }
}

TEST_F(SamplingCuda, DrawsByTemperatureAsThePlainSampler) {
  const int32_t count = usual_or_few(16, 5);
  for (const int32_t vocab : sizes({50, 5000, 151936}, {50, 20000})) {
    for (const float temperature : {0.3F, 1.0F, 2.0F}) {
      const std::vector<std::vector<float>> logits = random_logits(static_cast<size_t>(count), vocab, 2);
      std::vector<DrawRow> rows;
      for (int32_t i = 0; i < count; i++) rows.push_back(row_of(i, temperature));
      expect_plain_draws(logits, rows, {1, 2, 4}, fmt::format("vocabulary {}, temperature {}", vocab, temperature));
    }
  }
}

TEST_F(SamplingCuda, FiltersAsThePlainSampler) {
  const std::vector<DrawFilter> filters = {{1, 1, 0},      {20, 1, 0},    {20, 0.95F, 0},   {0, 0.5F, 0},
                                           {0, 0.999F, 0}, {0, 1, 0.05F}, {50, 0.8F, 0.1F}, {100000, 0.9F, 0},
                                           {0, 1e-6F, 0},  {3000, 1, 0}};
  for (const int32_t vocab : sizes({30, 5000, 151936}, {30, 20000})) {
    for (const float scale : {0.1F, 3.0F}) {  // flat: nearly all tokens matter; peaked: few do
      for (const DrawFilter& filter : filters) {
        const int32_t count = vocab > 10000 ? 3 : usual_or_few(16, 3);
        const std::vector<std::vector<float>> logits = random_logits(static_cast<size_t>(count), vocab, scale);
        expect_plain_draws(logits, rows_of(count, 0.8F, filter), {1, 3},
                           fmt::format("vocabulary {}, scale {}, top_k {}, top_p {}, min_p {}", vocab, scale,
                                       filter.top_k, filter.top_p, filter.min_p));
      }
    }
  }
}

TEST_F(SamplingCuda, DrawsTheTokensOfTheCpuSampler) {
  const std::vector<std::vector<float>> logits = random_logits(8, usual_or_few(151936, 20000), 2.5F);
  for (const DrawFilter& filter : std::vector<DrawFilter>{
           {0, 0.95F, 0}, {20, 0.8F, 0}, {40, 1, 0}, {0, 0.9F, 0.02F}, {0, 1, 0.1F}, {200, 0.6F, 0.01F}}) {
    const std::vector<DrawRow> rows = rows_of(8, 0.7F, filter);
    std::vector<int32_t> expected;
    for (size_t i = 0; i < rows.size(); i++) {
      const DrawRow& row = rows[i];
      const DrawParameters draw = {row.temperature, row.top_p, row.top_k, row.min_p, row.seed, row.position};
      expected.push_back(draw_filtered_cpu(logits[i].data(), static_cast<int32_t>(logits[i].size()), draw));
    }
    EXPECT_EQ(draw(logits, rows, 1), expected) << filter.top_k << " " << filter.top_p << " " << filter.min_p;
  }
}

// A batch is divided otherwise than a row alone: each CTA has more of a row's vocabulary, and passes over it in rounds.
TEST_F(SamplingCuda, DrawsTheSameTokensFromARowAloneAndAmong64) {
  const int32_t count = usual_or_few(64, 24);
  const std::vector<std::vector<float>> logits =
      random_logits(static_cast<size_t>(count), usual_or_few(151936, 40000), 2.5F);
  for (const DrawFilter& filter : std::vector<DrawFilter>{
           {0, 1, 0}, {20, 1, 0}, {100, 1, 0}, {20, 0.8F, 0}, {0, 0.95F, 0}, {0, 0.999F, 0}, {0, 1, 0.05F}}) {
    const std::vector<DrawRow> rows = rows_of(count, 0.7F, filter);
    const std::vector<int32_t> together = draw(logits, rows, 1);
    for (size_t i = 0; i < rows.size(); i += 9) {
      DrawRow lone = rows[i];
      lone.logits_row = lone.draw_row = 0;
      EXPECT_EQ(draw({logits[i]}, {lone}, 1).front(), together[i]) << filter.top_k << " " << filter.top_p << " " << i;
    }
  }
}

TEST_F(SamplingCuda, DrawsNoTokenFromARowWithoutNumbersAndFromItsNeighboursAsEver) {
  std::vector<std::vector<float>> logits = random_logits(3, 20000, 2);
  for (float& x : logits[1]) x = NAN;
  for (size_t i = 0; i < 100; i++) logits[2][i * 7] = NAN;
  for (const int ranks : {1, 3}) {
    for (const int kind : {0, 1, 2, 3, 4}) {
      std::vector<DrawRow> rows;
      for (int32_t i = 0; i < 3; i++) {
        rows.push_back(row_of(i, kind == 0 ? 0 : 0.9F));
        rows.back().top_k = kind == 2 ? 20 : 0;
        rows.back().top_p = kind == 3 ? 0.9F : 1;
        rows.back().min_p = kind == 4 ? 0.05F : 0;
      }
      const std::vector<int32_t> drawn = draw(logits, rows, ranks);
      EXPECT_EQ(drawn[1], -1);
      for (const size_t i : {size_t{0}, size_t{2}}) {
        std::vector<float> numbers = logits[i];
        for (float& x : numbers) x = std::isnan(x) ? -INFINITY : x;
        const PlainSampler plain{rows[i]};
        EXPECT_NEAR(plain.score(numbers, drawn[i]), plain.score(numbers, plain.draw(numbers)), 1e-4);
      }
    }
  }
}

TEST_F(SamplingCuda, PutsInOrderWhatNoListHolds) {
  // Thousands of equal logits about the cut, some of them kept.
  const int32_t vocab = 30000;
  std::vector<float> logits(static_cast<size_t>(vocab), 1.0F);
  for (size_t i = 0; i < 10; i++) logits[i * 1000 + 3] = 2.0F;
  std::vector<DrawRow> rows;
  for (int32_t i = 0; i < 6; i++) {
    rows.push_back(row_of(i, 1));
    rows.back().top_p = i < 3 ? 0.3F : 1;
    rows.back().top_k = i < 3 ? 0 : 5000;
  }
  expect_plain_draws(std::vector<std::vector<float>>(6, logits), rows, {1, 3}, "equal logits");
}

TEST_F(SamplingCuda, KeepsAsManyOfThousandsOfTiesAsTopPSaysAndAllThatTopKReaches) {
  // A list holds them; half of those that could win are out.
  const int32_t vocab = 20000;
  std::vector<float> logits(static_cast<size_t>(vocab), -40.0F);
  for (size_t i = 0; i < 3000; i++) logits[i * 6 + 1] = 1.0F;
  std::vector<DrawRow> rows;
  for (int32_t i = 0; i < 12; i++) {
    rows.push_back(row_of(i, 1));
    rows.back().top_p = i % 3 == 0 ? 1 : 0.5F;
    rows.back().top_k = i % 3 == 1 ? 0 : 500 + i;
  }
  expect_plain_draws(std::vector<std::vector<float>>(12, logits), rows, {1, 3}, "thousands of ties");
}

TEST_F(SamplingCuda, KeepsAllTiesOfTopKAndTheLowerIdsOfTopP) {
  // 8 tokens share the first place: top_k 1 keeps all of them, top_p 0.5 the first half.
  std::vector<float> logits(100, -50);
  for (int i = 0; i < 8; i++) logits[static_cast<size_t>(10 * i + 5)] = 1;
  std::vector<std::vector<float>> all;
  std::vector<DrawRow> by_count;
  std::vector<DrawRow> by_mass;
  for (int32_t i = 0; i < 200; i++) {
    all.push_back(logits);
    by_count.push_back(row_of(i, 1));
    by_count.back().top_k = 1;
    by_mass.push_back(row_of(i, 1));
    by_mass.back().top_p = 0.5F;
  }
  std::vector<int32_t> seen_by_count = draw(all, by_count, 1);
  std::vector<int32_t> seen_by_mass = draw(all, by_mass, 1);
  for (auto* seen : {&seen_by_count, &seen_by_mass}) {
    std::sort(seen->begin(), seen->end());
    seen->erase(std::unique(seen->begin(), seen->end()), seen->end());
  }
  EXPECT_EQ(seen_by_count, (std::vector<int32_t>{5, 15, 25, 35, 45, 55, 65, 75}));
  EXPECT_EQ(seen_by_mass, (std::vector<int32_t>{5, 15, 25, 35}));
}

TEST_F(SamplingCuda, DrawsTokensAsOftenAsTheirProbabilitySays) {
  const std::vector<float> logits = {std::log(0.5F), std::log(0.25F), std::log(0.125F), std::log(0.125F)};
  const size_t draws = 20000;
  std::vector<DrawRow> rows;
  for (size_t i = 0; i < draws; i++) {
    DrawRow row = row_of(0, 1);
    row.position = static_cast<int32_t>(i);
    row.draw_row = static_cast<int32_t>(i);
    rows.push_back(row);
  }
  std::vector<double> frequency(4);
  for (const int32_t id : draw({logits}, rows, 1))
    frequency[static_cast<size_t>(id)] += 1.0 / static_cast<double>(draws);
  for (size_t i = 0; i < 4; i++) EXPECT_NEAR(frequency[i], std::exp(logits[i]), 0.015);  // four standard deviations
}

TEST_F(SamplingCuda, PenalisesCountedAndPendingTokensOnce) {
  const int32_t vocab = 64;
  const int32_t begin = 32;
  const std::vector<float> logits = random_floats(size_t{3} * vocab, random_, 2);
  // Row 0: the pending token is among its counts; row 1: it is not; row 2: no penalties.
  const std::vector<DeviceTokenCount> counts = {{3, 4, 1}, {40, 0, 1}, {41, 2, 0}, {50, 1, 1}, {33, 0, 1}, {95, 3, 0}};
  const std::vector<int32_t> resolved = {41, 60, 50};
  std::vector<DrawRow> rows;
  for (int32_t i = 0; i < 3; i++) rows.push_back(row_of(i, 1));
  for (int i = 0; i < 2; i++) {
    rows[static_cast<size_t>(i)].repetition_penalty = 1.3F;
    rows[static_cast<size_t>(i)].presence_penalty = 0.4F;
    rows[static_cast<size_t>(i)].frequency_penalty = 0.25F;
    rows[static_cast<size_t>(i)].pending = i;
  }
  rows[0].counts_begin = 0;
  rows[0].counts_end = 4;
  rows[1].counts_begin = 4;
  rows[1].counts_end = 6;
  rows[2].pending = 2;

  std::vector<double> expected(logits.begin(), logits.end());
  const auto penalise = [&](size_t row, int32_t id, int32_t in_output) {
    double& x = expected[row * vocab + static_cast<size_t>(id - begin)];
    x = x > 0 ? x / 1.3F : x * 1.3F;
    x -= 0.25 * in_output;
    if (in_output > 0) x -= 0.4F;
  };
  penalise(0, 40, 0);
  penalise(0, 41, 3);
  penalise(0, 50, 1);
  penalise(1, 33, 0);
  penalise(1, 95, 3);
  penalise(1, 60, 1);

  const DeviceBuffer device_logits = to_device(logits);
  const DeviceBuffer device_rows = to_device(rows);
  const DeviceBuffer device_counts = to_device(counts);
  const DeviceBuffer device_resolved = to_device(resolved);
  const DeviceBuffer saved = poisoned((counts.size() + rows.size()) * 4);
  PenaltyArgs args;
  args.shard = {device_logits.as<float>(), vocab, begin, vocab};
  args.rows = device_rows.as<DrawRow>();
  args.num_rows = 3;
  args.counts = device_counts.as<DeviceTokenCount>();
  args.num_counts = static_cast<int32_t>(counts.size());
  args.resolved = device_resolved.as<int32_t>();
  args.saved = saved.as<float>();
  apply_penalties_cuda(args, stream_);
  EXPECT_TRUE(near_reference(to_host<float>(device_logits), expected, tests::kFloat32Tolerance));
}

}  // namespace
}  // namespace lorikeet::kernels
