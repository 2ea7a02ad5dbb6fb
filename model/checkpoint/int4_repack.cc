#include "model/checkpoint/int4_repack.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <numeric>
#include <utility>

namespace lorikeet::model {
namespace {

using kernels::Int4Weight;

constexpr int32_t kNibbles = 8;  // in a word

// Where values have 8 bits, inputs [0, size) stand for the high halves and [size, 2 size) for the low ones, and groups
// likewise.
std::vector<int32_t> groups_of(const QuantisedModule& m, Range inputs) {
  std::vector<int32_t> group(static_cast<size_t>(inputs.size()));
  for (int32_t i = 0; i < inputs.size(); ++i) group[static_cast<size_t>(i)] = group_of(m, inputs.begin + i);
  if (m.bits == 8) {
    group.resize(2 * group.size());
    for (size_t i = 0; i < group.size() / 2; ++i) group[group.size() / 2 + i] = group[i] + m.groups;
  }
  return group;
}

void keep_half(bool high, uint8_t* values, int32_t count) {
  for (int32_t i = 0; i < count; ++i) values[i] = static_cast<uint8_t>(high ? values[i] >> 4 : values[i] & 15);
}

// GPTQ words hold eight inputs of one output, compressed-tensors words too: where nothing is sorted or padded they
// become four bytes of the output's row as they are.
void copy_words(const QuantisedModule& m, Range outputs, Range inputs, Int4Weight& w) {
  const auto first_word = static_cast<size_t>(inputs.begin / kNibbles), words = static_cast<size_t>(w.k / kNibbles);
  const auto count = static_cast<size_t>(outputs.size());
  if (m.method == QuantMethod::compressed_tensors) {
    for (size_t n = 0; n < count; ++n) {
      const size_t row =
          (static_cast<size_t>(outputs.begin) + n) * static_cast<size_t>((m.k + kNibbles - 1) / kNibbles) + first_word;
      std::memcpy(w.q.data() + n * words * 4, m.weight.bytes.data() + row * 4, words * 4);
    }
    return;
  }
  constexpr size_t kTile = 16;  // words: one cache line of either side
  for (size_t n0 = 0; n0 < count; n0 += kTile) {
    for (size_t r0 = 0; r0 < words; r0 += kTile) {
      for (size_t n = n0; n < std::min(count, n0 + kTile); ++n) {
        for (size_t r = r0; r < std::min(words, r0 + kTile); ++r) {
          const uint32_t word =
              word_at(m.weight, (first_word + r) * static_cast<size_t>(m.n) + static_cast<size_t>(outputs.begin) + n);
          std::memcpy(w.q.data() + (n * words + r) * 4, &word, 4);
        }
      }
    }
  }
}

void gather_values(const QuantisedModule& m, Range outputs, Range inputs, const RunLayout& layout, Int4Weight& w) {
  constexpr int32_t kTileN = 256, kTileK = 32;  // outputs, bytes of a row
  const auto row_bytes = static_cast<size_t>(w.k / 2);
  std::array<std::array<uint8_t, kTileN>, 2 * kTileK> tile{};
  std::array<std::array<uint8_t, kTileN>, kTileK> pairs;
  size_t run = 0;
  for (int32_t b0 = 0; b0 < w.k / 2; b0 += kTileK) {
    const int32_t bytes = std::min(kTileK, w.k / 2 - b0);
    const size_t first_run = run;
    for (int32_t n0 = 0; n0 < w.n; n0 += kTileN) {
      const int32_t count = std::min(kTileN, w.n - n0);
      run = first_run;
      for (int32_t i = 0; i < 2 * bytes; ++i) {
        const int32_t stored = 2 * b0 + i;
        while (stored >= w.run_begin[run + 1]) ++run;
        const int32_t source = layout.source[static_cast<size_t>(stored)];
        uint8_t* values = tile[static_cast<size_t>(i)].data();
        if (source >= 0) {
          const int32_t input = source % inputs.size();
          read_input(m, inputs.begin + input, outputs.begin + n0, count, values);
          if (m.bits == 8) keep_half(source == input, values, count);
        } else {  // worth 0: q == zero
          std::memcpy(values, w.zero.data() + run * static_cast<size_t>(w.n) + static_cast<size_t>(n0),
                      static_cast<size_t>(count));
        }
      }
      // Pairs of inputs into bytes first, along outputs, then the small transposition.
      for (int32_t b = 0; b < bytes; ++b) {
        const auto& low = tile[static_cast<size_t>(2 * b)];
        const auto& high = tile[static_cast<size_t>(2 * b + 1)];
        auto& both = pairs[static_cast<size_t>(b)];
        for (size_t n = 0; n < kTileN; ++n) both[n] = static_cast<uint8_t>(low[n] | high[n] << 4);
      }
      for (int32_t n = 0; n < count; ++n) {
        uint8_t* row = w.q.data() + static_cast<size_t>(n0 + n) * row_bytes + static_cast<size_t>(b0);
        for (int32_t b = 0; b < bytes; ++b) row[b] = pairs[static_cast<size_t>(b)][static_cast<size_t>(n)];
      }
    }
  }
}

}  // namespace

RunLayout layout_runs(const std::vector<int32_t>& group_of) {
  const auto inputs = static_cast<int32_t>(group_of.size());
  std::vector<int32_t> order(group_of.size());
  std::iota(order.begin(), order.end(), 0);

  // A group whose inputs lie in several places is brought together: fewer runs, each with its scale.
  std::vector<int32_t> seen;
  for (int32_t i = 0; i < inputs; ++i) {
    const int32_t group = group_of[static_cast<size_t>(i)];
    if (i == 0 || group != group_of[static_cast<size_t>(i - 1)]) seen.push_back(group);
  }
  std::sort(seen.begin(), seen.end());
  if (std::adjacent_find(seen.begin(), seen.end()) != seen.end()) {
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return group_of[static_cast<size_t>(a)] < group_of[static_cast<size_t>(b)];
    });
  }

  RunLayout layout;
  layout.source.reserve(order.size());
  for (size_t i = 0; i < order.size();) {
    const int32_t group = group_of[static_cast<size_t>(order[i])];
    layout.run_begin.push_back(static_cast<int32_t>(layout.source.size()));
    layout.run_group.push_back(group);
    for (; i < order.size() && group_of[static_cast<size_t>(order[i])] == group; ++i) layout.source.push_back(order[i]);
    while (layout.source.size() % Int4Weight::kRunMultiple != 0) layout.source.push_back(-1);
  }
  layout.run_begin.push_back(static_cast<int32_t>(layout.source.size()));
  layout.plain = layout.source.size() == order.size();
  for (size_t i = 0; layout.plain && i < order.size(); ++i) layout.plain = layout.source[i] == static_cast<int32_t>(i);
  return layout;
}

Int4Weight repack_int4(const QuantisedModule& module, Range outputs, Range inputs) {
  RunLayout layout = layout_runs(groups_of(module, inputs));
  const bool halves = module.bits == 8;
  Int4Weight w;
  w.n = outputs.size();
  w.k = static_cast<int32_t>(layout.source.size());
  w.x_size = inputs.size();
  w.run_begin = layout.run_begin;
  const size_t values = layout.run_group.size() * static_cast<size_t>(w.n);
  w.scale.resize(values);
  w.zero.resize(values);
  for (size_t run = 0; run < layout.run_group.size(); ++run) {
    const int32_t group = layout.run_group[run] % module.groups;
    const bool high = halves && group == layout.run_group[run];
    for (int32_t n = 0; n < w.n; ++n) {
      const size_t i = run * static_cast<size_t>(w.n) + static_cast<size_t>(n);
      const int32_t zero = zero_of(module, group, outputs.begin + n);
      w.scale[i] = scale_of(module, group, outputs.begin + n) * (high ? 16.0F : 1.0F);
      w.zero[i] = static_cast<uint8_t>(!halves ? zero : high ? zero >> 4 : zero & 15);
    }
  }
  w.q.resize(static_cast<size_t>(w.n) * static_cast<size_t>(w.k / 2));
  if (layout.plain && !halves && module.method != QuantMethod::awq && inputs.begin % kNibbles == 0) {
    copy_words(module, outputs, inputs, w);
  } else {
    gather_values(module, outputs, inputs, layout, w);
  }
  if (halves) {
    for (int32_t& source : layout.source) source = source < 0 ? source : source % inputs.size();
  }
  if (!layout.plain || halves) w.permutation = std::move(layout.source);
  return w;
}

kernels::DenseWeight dequantise(const QuantisedModule& module, Range outputs, Range inputs) {
  constexpr int32_t kTileN = 256, kTileK = 16;  // outputs; inputs, one cache line of a row of floats
  const auto rows = static_cast<size_t>(outputs.size()), columns = static_cast<size_t>(inputs.size());
  auto values = std::make_shared<std::vector<float>>(rows * columns);
  std::array<std::array<uint8_t, kTileN>, kTileK> tile{};
  for (int32_t n0 = 0; n0 < outputs.size(); n0 += kTileN) {
    const int32_t count = std::min(kTileN, outputs.size() - n0);
    for (int32_t k0 = 0; k0 < inputs.size(); k0 += kTileK) {
      const int32_t wide = std::min(kTileK, inputs.size() - k0);
      for (int32_t k = 0; k < wide; ++k) {
        read_input(module, inputs.begin + k0 + k, outputs.begin + n0, count, tile[static_cast<size_t>(k)].data());
      }
      for (int32_t n = 0; n < count; ++n) {
        float* row = values->data() + static_cast<size_t>(n0 + n) * columns + static_cast<size_t>(k0);
        for (int32_t k = 0; k < wide; ++k) {
          const int32_t group = group_of(module, inputs.begin + k0 + k), output = outputs.begin + n0 + n;
          const int32_t steps = tile[static_cast<size_t>(k)][static_cast<size_t>(n)] - zero_of(module, group, output);
          row[k] = scale_of(module, group, output) * static_cast<float>(steps);
        }
      }
    }
  }
  return {outputs.size(), inputs.size(), kernels::Dtype::f32, values->data(), values};
}

}  // namespace lorikeet::model
