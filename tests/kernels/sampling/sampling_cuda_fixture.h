// What tests of draws on the device share: the definitions in double, rows, and draws through parts of the vocabulary.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/sampling/philox.h"
#include "kernels/sampling/sampling_cuda.h"
#include "tests/kernels/base/cuda_test.h"

namespace lorikeet::kernels {

// The definitions, in double: vLLM's order, our noise.
struct PlainSampler {
  DrawRow row;

  double noise(int32_t id) const {
    return -std::log(-std::log1p(-static_cast<double>(noise_uniform(noise_bits(row.seed, row.position, id)))));
  }

  // Ids that the filters keep, in no order.
  std::vector<int32_t> kept(const std::vector<float>& logits) const {
    struct Token {
      double value;
      int32_t id;
    };
    std::vector<Token> tokens;
    tokens.reserve(logits.size());
    for (const float logit : logits) {
      tokens.push_back({static_cast<double>(logit) / row.temperature, static_cast<int32_t>(tokens.size())});
    }
    const auto better = [](const Token& a, const Token& b) {
      return a.value > b.value || (a.value == b.value && a.id < b.id);
    };
    const double best = std::min_element(tokens.begin(), tokens.end(), better)->value;
    if (row.min_p > 0) {
      std::erase_if(tokens, [&](const Token& t) { return std::exp(t.value - best) < static_cast<double>(row.min_p); });
    }
    if (row.top_k > 0 && static_cast<size_t>(row.top_k) < tokens.size()) {
      const auto last = tokens.begin() + row.top_k - 1;
      std::nth_element(tokens.begin(), last, tokens.end(), better);
      const double least = last->value;
      std::erase_if(tokens, [&](const Token& t) { return t.value < least; });
    }
    if (row.top_p < 1) {
      std::sort(tokens.begin(), tokens.end(), better);
      double total = 0;
      for (const Token& token : tokens) total += std::exp(token.value - best);
      double before = 0;
      size_t count = 0;
      while (count < tokens.size() && before < static_cast<double>(row.top_p) * total) {
        before += std::exp(tokens[count++].value - best);
      }
      tokens.resize(std::max(count, size_t{1}));
    }
    std::vector<int32_t> ids;
    for (const Token& token : tokens) ids.push_back(token.id);
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
    double most = score(logits, winner);
    for (const int32_t id : ids) {
      const double of_id = score(logits, id);
      if (of_id > most) {
        most = of_id;
        winner = id;
      }
    }
    return winner;
  }
};

struct DrawFilter {
  int32_t top_k;
  float top_p, min_p;
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

  std::vector<DrawRow> rows_of(int32_t count, float temperature, const DrawFilter& filter) {
    std::vector<DrawRow> rows;
    for (int32_t i = 0; i < count; i++) {
      rows.push_back(row_of(i, temperature));
      rows.back().top_k = filter.top_k;
      rows.back().top_p = filter.top_p;
      rows.back().min_p = filter.min_p;
    }
    return rows;
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

  // Every draw is the plain sampler's, or so near to it that rounding decides, in however many parts the vocabulary is.
  void expect_plain_draws(const std::vector<std::vector<float>>& logits, const std::vector<DrawRow>& rows,
                          std::initializer_list<int> ranks, const std::string& what) {
    std::vector<int32_t> expected;
    for (size_t i = 0; i < rows.size(); i++) expected.push_back(PlainSampler{rows[i]}.draw(logits[i]));
    for (const int parts : ranks) {
      SCOPED_TRACE(fmt::format("{}, {} ranks", what, parts));
      const std::vector<int32_t> drawn = draw(logits, rows, parts);
      int near_ties = 0;
      for (size_t i = 0; i < rows.size(); i++) {
        if (drawn[i] == expected[i]) continue;
        const PlainSampler plain{rows[i]};
        ASSERT_GE(drawn[i], 0);
        ASSERT_LT(static_cast<size_t>(drawn[i]), logits[i].size());
        EXPECT_NEAR(plain.score(logits[i], drawn[i]), plain.score(logits[i], expected[i]), 1e-4) << "row " << i;
        near_ties++;
      }
      EXPECT_LE(near_ties, 1);
    }
  }

  std::vector<std::vector<float>> random_logits(size_t rows, int32_t vocab, float scale) {
    std::vector<std::vector<float>> logits;
    for (size_t i = 0; i < rows; i++) logits.push_back(random_floats(static_cast<size_t>(vocab), random_, scale));
    return logits;
  }

  std::mt19937 random_{9};
};

}  // namespace lorikeet::kernels
