#include "model/checkpoint/int4_repack.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>

namespace lorikeet::model {
namespace {

using kernels::Int4Weight;

constexpr int32_t kNibbles = 8;  // in a word
constexpr uint32_t kSymmetricZero = 8;

// AWQ: column j of eight sits in this nibble.
constexpr std::array<uint32_t, 8> kAwqNibble = {0, 4, 1, 5, 2, 6, 3, 7};

uint32_t word_at(const TensorView& tensor, size_t i) {
  uint32_t word = 0;  // the bytes may be unaligned
  std::memcpy(&word, tensor.bytes.data() + i * sizeof word, sizeof word);
  return word;
}

uint32_t nibble(uint32_t word, uint32_t i) {
  return word >> (4 * i) & 15;
}

bool is_gptq(QuantMethod method) {
  return method == QuantMethod::gptq || method == QuantMethod::gptq_v2;
}

int32_t words_for(int32_t values) {
  return (values + kNibbles - 1) / kNibbles;
}

uint32_t stored_zero(const Int4Module& m, int32_t group, int32_t output) {
  const auto g = static_cast<size_t>(group), o = static_cast<size_t>(output);
  const size_t row_words = static_cast<size_t>(words_for(m.n));
  switch (m.method) {
    case QuantMethod::awq:
      return nibble(word_at(*m.zeros, g * row_words + o / 8), kAwqNibble[o % 8]);
    case QuantMethod::compressed_tensors:
      return nibble(word_at(*m.zeros, o / 8 * static_cast<size_t>(m.groups) + g), o % 8);
    default:
      return nibble(word_at(*m.zeros, g * row_words + o / 8), o % 8);
  }
}

uint8_t zero_of(const Int4Module& m, int32_t group, int32_t output) {
  if (!m.zeros) return kSymmetricZero;
  return static_cast<uint8_t>(stored_zero(m, group, output) + (m.method == QuantMethod::gptq ? 1 : 0));
}

float scale_of(const Int4Module& m, int32_t group, int32_t output) {
  const size_t i = m.method == QuantMethod::compressed_tensors
                       ? static_cast<size_t>(output) * static_cast<size_t>(m.groups) + static_cast<size_t>(group)
                       : static_cast<size_t>(group) * static_cast<size_t>(m.n) + static_cast<size_t>(output);
  return kernels::load_float(m.scales.bytes.data(), *m.scales.entry->dtype, i);
}

Result<void> expect(const TensorView& tensor, std::initializer_list<int64_t> shape, bool floating) {
  const TensorEntry& entry = *tensor.entry;
  if (!std::equal(shape.begin(), shape.end(), entry.shape.begin(), entry.shape.end())) {
    return fail("{} has shape {}, expected {}", tensor.where, shape_text(entry.shape),
                shape_text(std::vector<int64_t>(shape)));
  }
  const bool is_float =
      entry.dtype == kernels::Dtype::f16 || entry.dtype == kernels::Dtype::bf16 || entry.dtype == kernels::Dtype::f32;
  if (floating ? !is_float : entry.dtype != kernels::Dtype::i32) {
    return fail("{} is {}, expected {}", tensor.where, entry.dtype_name, floating ? "F16, BF16 or F32" : "I32");
  }
  return {};
}

std::vector<int32_t> groups_of(const Int4Module& m, Range inputs) {
  std::vector<int32_t> group(static_cast<size_t>(inputs.size()));
  for (int32_t i = 0; i < inputs.size(); ++i) {
    const int32_t input = inputs.begin + i;
    group[static_cast<size_t>(i)] = m.group_index
                                        ? static_cast<int32_t>(word_at(*m.group_index, static_cast<size_t>(input)))
                                        : input / m.group_size;
  }
  return group;
}

// GPTQ words hold eight inputs of one output, compressed-tensors words too: where nothing is sorted or padded they
// become four bytes of the output's row as they are.
void copy_words(const Int4Module& m, Range outputs, Range inputs, Int4Weight& w) {
  const auto first_word = static_cast<size_t>(inputs.begin / kNibbles), words = static_cast<size_t>(w.k / kNibbles);
  const auto count = static_cast<size_t>(outputs.size());
  if (m.method == QuantMethod::compressed_tensors) {
    for (size_t n = 0; n < count; ++n) {
      const size_t row = (static_cast<size_t>(outputs.begin) + n) * static_cast<size_t>(words_for(m.k)) + first_word;
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

// The values of one input for outputs [first, first + count).
void read_input(const Int4Module& m, int32_t input, int32_t first, int32_t count, uint8_t* values) {
  const auto k = static_cast<size_t>(input), n = static_cast<size_t>(m.n);
  switch (m.method) {
    case QuantMethod::awq:
      for (int32_t o = first; o < first + count;) {
        const uint32_t word = word_at(m.weight, k * (n / 8) + static_cast<size_t>(o / 8));
        uint8_t eight[8];
        for (size_t j = 0; j < 8; ++j) eight[j] = static_cast<uint8_t>(nibble(word, kAwqNibble[j]));
        const int32_t skipped = o % 8, used = std::min(8 - skipped, first + count - o);
        if (used == 8) {
          std::memcpy(values + (o - first), eight, 8);
        } else {
          std::memcpy(values + (o - first), eight + skipped, static_cast<size_t>(used));
        }
        o += used;
      }
      break;
    case QuantMethod::compressed_tensors:
      for (int32_t i = 0; i < count; ++i) {
        const auto o = static_cast<size_t>(first + i);
        values[i] = static_cast<uint8_t>(
            nibble(word_at(m.weight, o * static_cast<size_t>(words_for(m.k)) + k / 8), static_cast<uint32_t>(k % 8)));
      }
      break;
    default:
      for (int32_t i = 0; i < count; ++i) {
        const auto o = static_cast<size_t>(first + i);
        values[i] = static_cast<uint8_t>(nibble(word_at(m.weight, k / 8 * n + o), static_cast<uint32_t>(k % 8)));
      }
      break;
  }
}

void gather_values(const Int4Module& m, Range outputs, Range inputs, const RunLayout& layout, Int4Weight& w) {
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
          read_input(m, inputs.begin + source, outputs.begin + n0, count, values);
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

Result<void> check_gptq_zeros(const Int4Module& m) {
  const auto words = static_cast<size_t>(m.zeros->entry->elements()), row = static_cast<size_t>(words_for(m.n));
  const bool v1 = m.method == QuantMethod::gptq;
  bool all_of_other_version = words > 0;
  for (size_t i = 0; i < words; ++i) {
    const uint32_t word = word_at(*m.zeros, i);
    all_of_other_version = all_of_other_version && word == (v1 ? 0x88888888 : 0x77777777);
    for (uint32_t j = 0; v1 && j < kNibbles; ++j) {
      if (nibble(word, j) != 15) continue;
      return fail(
          "{}: the stored zero of group {}, output {} is 15, which some GPTQ implementations read as 16 and others as "
          "0; "
          "save the checkpoint as gptq_v2",
          m.zeros->where, i / row, i % row * kNibbles + j);
    }
  }
  if (m.must_be_symmetric && all_of_other_version) {
    return fail(
        "{}: the configuration says sym, whose zeros are 8, yet as {} every zero is {}: checkpoint_format is wrong",
        m.zeros->where, v1 ? "gptq (v1)" : "gptq_v2", v1 ? 9 : 7);
  }
  return {};
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

Result<void> check_int4_shapes(const Int4Module& m) {
  if (is_gptq(m.method) && m.k % kNibbles != 0) {
    return fail("{}: {} inputs do not pack into words of 8", m.weight.where, m.k);
  }
  if (m.method != QuantMethod::compressed_tensors && m.n % kNibbles != 0) {
    return fail("{}: {} outputs do not pack into words of 8", m.weight.where, m.n);
  }
  Result<void> weight, scales, zeros;
  switch (m.method) {
    case QuantMethod::awq:
      weight = expect(m.weight, {m.k, m.n / kNibbles}, false);
      scales = expect(m.scales, {m.groups, m.n}, true);
      if (m.zeros) zeros = expect(*m.zeros, {m.groups, m.n / kNibbles}, false);
      break;
    case QuantMethod::compressed_tensors:
      weight = expect(m.weight, {m.n, words_for(m.k)}, false);
      scales = expect(m.scales, {m.n, m.groups}, true);
      if (m.zeros) zeros = expect(*m.zeros, {words_for(m.n), m.groups}, false);
      break;
    default:
      weight = expect(m.weight, {m.k / kNibbles, m.n}, false);
      scales = expect(m.scales, {m.groups, m.n}, true);
      if (m.zeros) zeros = expect(*m.zeros, {m.groups, m.n / kNibbles}, false);
      break;
  }
  for (const auto* ok : {&weight, &scales, &zeros}) {
    if (!*ok) return *ok;
  }
  return m.group_index ? expect(*m.group_index, {m.k}, false) : Result<void>{};
}

Result<void> check_int4_values(const Int4Module& m) {
  const auto scale_count = static_cast<size_t>(m.scales.entry->elements());
  for (size_t i = 0; i < scale_count; ++i) {
    if (!std::isfinite(kernels::load_float(m.scales.bytes.data(), *m.scales.entry->dtype, i))) {
      return fail("{}: element {} is not finite", m.scales.where, i);
    }
  }
  if (m.group_index) {
    for (int32_t i = 0; i < m.k; ++i) {
      const auto group = static_cast<int32_t>(word_at(*m.group_index, static_cast<size_t>(i)));
      if (group < 0 || group >= m.groups) {
        return fail("{}: input {} is of group {}, there are {} groups", m.group_index->where, i, group, m.groups);
      }
    }
  }
  return is_gptq(m.method) && m.zeros ? check_gptq_zeros(m) : Result<void>{};
}

Int4Weight repack_int4(const Int4Module& module, Range outputs, Range inputs) {
  RunLayout layout = layout_runs(groups_of(module, inputs));
  Int4Weight w;
  w.n = outputs.size();
  w.k = static_cast<int32_t>(layout.source.size());
  w.x_size = inputs.size();
  w.run_begin = layout.run_begin;
  const size_t values = layout.run_group.size() * static_cast<size_t>(w.n);
  w.scale.resize(values);
  w.zero.resize(values);
  for (size_t run = 0; run < layout.run_group.size(); ++run) {
    for (int32_t n = 0; n < w.n; ++n) {
      const size_t i = run * static_cast<size_t>(w.n) + static_cast<size_t>(n);
      w.scale[i] = scale_of(module, layout.run_group[run], outputs.begin + n);
      w.zero[i] = zero_of(module, layout.run_group[run], outputs.begin + n);
    }
  }
  w.q.resize(static_cast<size_t>(w.n) * static_cast<size_t>(w.k / 2));
  if (layout.plain && module.method != QuantMethod::awq && inputs.begin % kNibbles == 0) {
    copy_words(module, outputs, inputs, w);
  } else {
    gather_values(module, outputs, inputs, layout, w);
  }
  if (!layout.plain) w.permutation = std::move(layout.source);
  return w;
}

}  // namespace lorikeet::model
