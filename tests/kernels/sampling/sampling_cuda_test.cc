#include "kernels/sampling/sampling_cuda.h"

#include <algorithm>
#include <numeric>

#include "kernels/sampling/philox.h"
#include "kernels/sampling/sampling.h"
#include "tests/kernels/base/cuda_test.h"

namespace lorikeet::kernels {
namespace {

// The definitions, in double: vLLM's order, our noise.
struct PlainSampler {
  DrawRow row;

  double noise(int32_t id) const {
    return -std::log(-std::log1p(-static_cast<double>(noise_uniform(noise_bits(row.seed, row.position, id)))));
  }

  // Ids that the filters keep.
  std::vector<int32_t> kept(const std::vector<float>& logits) const {
    std::vector<int32_t> ids(logits.size());
    std::iota(ids.begin(), ids.end(), 0);
    const auto value = [&](int32_t id) {
      return static_cast<double>(logits[static_cast<size_t>(id)]) / row.temperature;
    };
    std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return value(a) > value(b); });
    const double best = value(ids.front());
    if (row.min_p > 0) {
      std::erase_if(ids, [&](int32_t id) { return std::exp(value(id) - best) < static_cast<double>(row.min_p); });
    }
    if (row.top_k > 0 && static_cast<size_t>(row.top_k) < ids.size()) {
      const double last = value(ids[static_cast<size_t>(row.top_k) - 1]);
      std::erase_if(ids, [&](int32_t id) { return value(id) < last; });
    }
    if (row.top_p < 1) {
      double total = 0;
      for (const int32_t id : ids) total += std::exp(value(id) - best);
      double before = 0;
      size_t count = 0;
      while (count < ids.size() && before < static_cast<double>(row.top_p) * total) {
        before += std::exp(value(ids[count++]) - best);
      }
      ids.resize(std::max(count, size_t{1}));
    }
    return ids;
  }

  double score(const std::vector<float>& logits, int32_t id) const {
    const double logit = logits[static_cast<size_t>(id)];
    return row.greedy() ? logit : logit / row.temperature + noise(id);
  }

  int32_t draw(const std::vector<float>& logits) const {
    std::vector<int32_t> ids(logits.size());
    std::iota(ids.begin(), ids.end(), 0);
    if (row.filtered()) {
      ids = kept(logits);
      std::sort(ids.begin(), ids.end());
    }
    int32_t winner = ids.front();
    for (const int32_t id : ids) {
      if (score(logits, id) > score(logits, winner)) winner = id;
    }
    return winner;
  }
};

class SamplingCuda : public CudaTest {
 protected:
  DrawRow row_of(int32_t i, float temperature) {
    DrawRow row;
    row.seed = 0x123456789abcdefULL * static_cast<uint64_t>(i + 1);
    row.position = 17 + 3 * i;
    row.logits_row = i;
    row.draw_row = i;
    row.temperature = temperature;
    return row;
  }

  // Draws through `ranks` unequal parts of the vocabulary.
  std::vector<int32_t> draw(const std::vector<std::vector<float>>& logits, const std::vector<DrawRow>& rows,
                            int ranks) {
    const auto vocab = static_cast<int32_t>(logits[0].size());
    const auto num_rows = static_cast<int32_t>(rows.size());
    FilteredDrawArgs filtered;
    filtered.pieces = ranks;
    for (int r = 0; r <= ranks; r++)
      filtered.vocab_begins[r] = r == ranks ? vocab : vocab * r / ranks + (r == 1 ? 1 : 0);
    const int64_t stride = vocab / ranks + 5;
    filtered.piece_stride = stride * static_cast<int64_t>(logits.size());
    filtered.stride = stride;
    std::vector<float> pieces(static_cast<size_t>(ranks * filtered.piece_stride), 1e9F);
    for (int r = 0; r < ranks; r++) {
      for (size_t i = 0; i < logits.size(); i++) {
        std::copy(logits[i].begin() + filtered.vocab_begins[r], logits[i].begin() + filtered.vocab_begins[r + 1],
                  pieces.begin() + r * filtered.piece_stride + static_cast<int64_t>(i) * stride);
      }
    }
    const DeviceBuffer device_logits = to_device(pieces);
    const DeviceBuffer device_rows = to_device(rows);
    const DeviceBuffer drawn = poisoned(rows.size() * 4);
    filtered.logits = device_logits.as<float>();
    filtered.rows = device_rows.as<DrawRow>();
    filtered.num_rows = num_rows;
    filtered.drawn = drawn.as<int32_t>();
    if (rows.front().filtered()) {
      const DeviceBuffer workspace = zeroed(vocab_cut_workspace(vocab));
      filtered.workspace = workspace.data();
      draw_filtered_cuda(filtered, stream_);
      const std::vector<int32_t> first = to_host<int32_t>(drawn);
      draw_filtered_cuda(filtered, stream_);  // the workspace is left as it was found
      EXPECT_EQ(to_host<int32_t>(drawn), first);
      return to_host<int32_t>(drawn);
    }
    const DeviceBuffer best = poisoned(static_cast<uint64_t>(ranks) * rows.size() * sizeof(Candidate));
    const DeviceBuffer workspace = zeroed(unfiltered_draw_workspace(num_rows, vocab));
    for (int r = 0; r < ranks; r++) {
      UnfilteredDrawArgs args;
      args.shard = {device_logits.as<float>() + r * filtered.piece_stride, stride, filtered.vocab_begins[r],
                    filtered.vocab_begins[r + 1] - filtered.vocab_begins[r]};
      args.rows = filtered.rows;
      args.num_rows = num_rows;
      args.best = best.as<Candidate>() + r * num_rows;
      args.drawn = ranks == 1 ? filtered.drawn : nullptr;
      args.workspace = workspace.data();
      args.workspace_rows = num_rows;
      draw_unfiltered_cuda(args, stream_);
    }
    if (ranks > 1) compare_draws_cuda({best.as<Candidate>(), ranks, filtered.rows, num_rows, filtered.drawn}, stream_);
    return to_host<int32_t>(drawn);
  }

  // Every draw is the plain sampler's, or so near to it that rounding decides.
  void expect_plain_draws(const std::vector<std::vector<float>>& logits, const std::vector<DrawRow>& rows, int ranks,
                          const std::string& what) {
    const std::vector<int32_t> drawn = draw(logits, rows, ranks);
    int near_ties = 0;
    for (size_t i = 0; i < rows.size(); i++) {
      const PlainSampler plain{rows[i]};
      const int32_t expected = plain.draw(logits[i]);
      if (drawn[i] == expected) continue;
      ASSERT_GE(drawn[i], 0) << what;
      ASSERT_LT(static_cast<size_t>(drawn[i]), logits[i].size()) << what;
      EXPECT_NEAR(plain.score(logits[i], drawn[i]), plain.score(logits[i], expected), 1e-4) << what << ", row " << i;
      near_ties++;
    }
    EXPECT_LE(near_ties, 1) << what;
  }

  std::vector<std::vector<float>> random_logits(size_t rows, int32_t vocab, float scale) {
    std::vector<std::vector<float>> logits;
    for (size_t i = 0; i < rows; i++) logits.push_back(random_floats(static_cast<size_t>(vocab), random_, scale));
    return logits;
  }

  std::mt19937 random_{9};
};

TEST_F(SamplingCuda, DrawsGreedilyWithTiesToTheLowerId) {
  for (const int32_t vocab : {10, 2048, 151936}) {
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
  for (const int32_t vocab : {50, 5000, 151936}) {
    for (const float temperature : {0.3F, 1.0F, 2.0F}) {
      const std::vector<std::vector<float>> logits = random_logits(16, vocab, 2);
      std::vector<DrawRow> rows;
      for (int32_t i = 0; i < 16; i++) rows.push_back(row_of(i, temperature));
      for (const int ranks : {1, 2, 4}) {
        expect_plain_draws(logits, rows, ranks, fmt::format("vocabulary {}, temperature {}", vocab, temperature));
      }
    }
  }
}

TEST_F(SamplingCuda, FiltersAsThePlainSampler) {
  struct Filter {
    int32_t top_k;
    float top_p, min_p;
  };
  const std::vector<Filter> filters = {{1, 1, 0},      {20, 1, 0},    {20, 0.95F, 0},   {0, 0.5F, 0},
                                       {0, 0.999F, 0}, {0, 1, 0.05F}, {50, 0.8F, 0.1F}, {100000, 0.9F, 0},
                                       {0, 1e-6F, 0},  {3000, 1, 0}};
  for (const int32_t vocab : {30, 5000, 151936}) {
    for (const float scale : {0.1F, 3.0F}) {  // flat: nearly all tokens matter; peaked: few do
      for (const Filter& filter : filters) {
        const size_t count = vocab > 100000 ? 3 : 16;
        const std::vector<std::vector<float>> logits = random_logits(count, vocab, scale);
        std::vector<DrawRow> rows;
        for (int32_t i = 0; i < static_cast<int32_t>(count); i++) {
          rows.push_back(row_of(i, 0.8F));
          rows.back().top_k = filter.top_k;
          rows.back().top_p = filter.top_p;
          rows.back().min_p = filter.min_p;
        }
        for (const int ranks : {1, 3}) {
          expect_plain_draws(logits, rows, ranks,
                             fmt::format("vocabulary {}, scale {}, top_k {}, top_p {}, min_p {}, {} ranks", vocab,
                                         scale, filter.top_k, filter.top_p, filter.min_p, ranks));
        }
      }
    }
  }
}

TEST_F(SamplingCuda, DrawsTheTokensOfTheCpuSampler) {
  struct Filter {
    int32_t top_k;
    float top_p, min_p;
  };
  const std::vector<std::vector<float>> logits = random_logits(8, 151936, 2.5F);
  for (const Filter& filter : std::vector<Filter>{
           {0, 0.95F, 0}, {20, 0.8F, 0}, {40, 1, 0}, {0, 0.9F, 0.02F}, {0, 1, 0.1F}, {200, 0.6F, 0.01F}}) {
    std::vector<DrawRow> rows;
    for (int32_t i = 0; i < 8; i++) {
      rows.push_back(row_of(i, 0.7F));
      rows.back().top_k = filter.top_k;
      rows.back().top_p = filter.top_p;
      rows.back().min_p = filter.min_p;
    }
    std::vector<int32_t> expected;
    for (size_t i = 0; i < rows.size(); i++) {
      const DrawRow& row = rows[i];
      const DrawParameters draw = {row.temperature, row.top_p, row.top_k, row.min_p, row.seed, row.position};
      expected.push_back(draw_filtered_cpu(logits[i].data(), static_cast<int32_t>(logits[i].size()), draw));
    }
    EXPECT_EQ(draw(logits, rows, 1), expected) << filter.top_k << " " << filter.top_p << " " << filter.min_p;
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
  for (const int ranks : {1, 3}) {
    expect_plain_draws(std::vector<std::vector<float>>(6, logits), rows, ranks, fmt::format("{} ranks", ranks));
  }
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
