#include "model/checkpoint/quantised_module.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "model/checkpoint/stored_floats.h"

namespace lorikeet::model {
namespace {

// AWQ: column j of eight sits in this nibble.
constexpr std::array<uint32_t, 8> kAwqNibble = {0, 4, 1, 5, 2, 6, 3, 7};

uint32_t field(uint32_t word, uint32_t i, int32_t bits) {
  return word >> (static_cast<uint32_t>(bits) * i) & ((1u << bits) - 1);
}

// One byte per value, signed, instead of words.
bool is_bytes(const TensorView& tensor) {
  return tensor.entry->dtype_name == "I8";
}

int32_t values_per_word(const QuantisedModule& m) {
  return 32 / m.bits;
}

int32_t words_for(const QuantisedModule& m, int32_t values) {
  return (values + values_per_word(m) - 1) / values_per_word(m);
}

int32_t middle(const QuantisedModule& m) {
  return 1 << (m.bits - 1);
}

int32_t signed_byte(const TensorView& tensor, size_t i) {
  return static_cast<int8_t>(tensor.bytes[i]);
}

uint32_t stored_zero(const QuantisedModule& m, int32_t group, int32_t output) {
  const auto g = static_cast<size_t>(group), o = static_cast<size_t>(output);
  const auto each = static_cast<size_t>(values_per_word(m)), row_words = static_cast<size_t>(words_for(m, m.n));
  const auto place = static_cast<uint32_t>(o % each);
  switch (m.method) {
    case QuantMethod::awq:
      return field(word_at(*m.zeros, g * row_words + o / each), kAwqNibble[place], m.bits);
    case QuantMethod::compressed_tensors:
      return field(word_at(*m.zeros, o / each * static_cast<size_t>(m.groups) + g), place, m.bits);
    default:
      return field(word_at(*m.zeros, g * row_words + o / each), place, m.bits);
  }
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

// A compressed-tensors module says its shape a second time, as two I64 (or I32).
Result<void> check_stated_shape(TensorView tensor, int32_t outputs, int32_t inputs) {
  const TensorEntry& entry = *tensor.entry;
  const size_t element = entry.dtype_name == "I64" ? 8 : entry.dtype_name == "I32" ? 4 : 0;
  if (entry.shape != std::vector<int64_t>{2} || element == 0) {
    return fail("{} is {} {}, expected two I64", tensor.where, entry.dtype_name, shape_text(entry.shape));
  }
  if (auto ok = read_bytes(tensor); !ok) return ok;
  int64_t stated[2] = {0, 0};  // little-endian, so the low bytes of an I32 are in place
  for (size_t i = 0; i < 2; ++i) std::memcpy(&stated[i], tensor.bytes.data() + i * element, element);
  if (stated[0] != outputs || stated[1] != inputs) {
    return fail("{} says [{}, {}], expected [{}, {}]", tensor.where, stated[0], stated[1], outputs, inputs);
  }
  return {};
}

// compressed-tensors saves an index of -1 everywhere where activations were not ordered.
bool is_unset_index(const TensorView& tensor) {
  return !tensor.bytes.empty() &&
         std::all_of(tensor.bytes.begin(), tensor.bytes.end(), [](uint8_t byte) { return byte == 0xff; });
}

// An index of 0 everywhere where there are more groups, which would then have no inputs: a tool left it empty, and the
// groups lie one behind the other.
bool is_empty_index(const QuantisedModule& m) {
  const auto& bytes = m.group_index->bytes;
  return m.groups > 1 && (m.k + m.group_size - 1) / m.group_size == m.groups &&
         std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

// How many bits a value has where `words` words hold `values` of them; 0: no whole number.
int32_t bits_in(int64_t words, int32_t values, int32_t stated) {
  if (words == (static_cast<int64_t>(values) * stated + 31) / 32) return stated;  // the last word may be partly used
  if (words < 1 || words > values || words * 32 % values != 0) return 0;
  return static_cast<int32_t>(words * 32 / values);
}

// What the shape of the packed values says: bits, and whether they lie along the outputs, as AWQ's, or along the
// inputs, as GPTQ's (of which version, the zeros say: open_servable() looks at them).
void read_packing(const std::vector<int64_t>& shape, QuantisedModule& m) {
  if (shape.size() != 2) return;
  if (m.method == QuantMethod::compressed_tensors) {
    if (const int32_t bits = bits_in(shape[1], m.k, m.bits); shape[0] == m.n && bits > 0) m.bits = bits;
    return;
  }
  const int32_t gptq = shape[1] == m.n ? bits_in(shape[0], m.k, m.bits) : 0;
  const int32_t awq = shape[0] == m.k ? bits_in(shape[1], m.n, m.bits) : 0;
  if (is_gptq(m.method) && awq > 0 && gptq != m.bits && (gptq == 0 || awq == m.bits)) m.method = QuantMethod::awq;
  if (m.method == QuantMethod::awq && awq == 0 && gptq > 0) m.method = QuantMethod::gptq;
  if (const int32_t bits = m.method == QuantMethod::awq ? awq : gptq; bits > 0) m.bits = bits;
}

// The number of groups is that of the scales. The stated size counts where it gives that many; else the power of two that
// does, which is what quantisers take, or equal parts.
void read_groups(int32_t stated_size, QuantisedModule& m) {
  const auto groups_of = [&](int64_t size) { return (m.k + size - 1) / size; };
  m.group_size = stated_size < 0 ? m.k : stated_size;
  m.groups = static_cast<int32_t>(groups_of(m.group_size));
  const auto& shape = m.scales.entry->shape;
  const int64_t stored = shape.size() != 2 ? 0 : shape[m.method == QuantMethod::compressed_tensors ? 1 : 0];
  if (stored == m.groups || stored < 1 || stored > m.k) return;
  int32_t size = stored == 1 ? m.k : 1;
  while (size < m.k && groups_of(size) > stored) size *= 2;
  if (groups_of(size) != stored && m.k % stored == 0) size = static_cast<int32_t>(m.k / stored);
  if (groups_of(size) != stored && !m.group_index) return;  // nothing says which inputs a group has
  m.groups = static_cast<int32_t>(stored);
  m.group_size = size;
}

Result<void> check_gptq_zeros(const QuantisedModule& m) {
  const auto words = static_cast<size_t>(m.zeros->entry->elements()), row = static_cast<size_t>(words_for(m, m.n));
  const bool v1 = m.method == QuantMethod::gptq;
  const auto each = static_cast<uint32_t>(values_per_word(m)), most = (1u << m.bits) - 1;
  const auto other = static_cast<uint32_t>(middle(m) - (v1 ? 0 : 1));
  bool all_of_other_version = words > 0;
  for (size_t i = 0; i < words; ++i) {
    const uint32_t word = word_at(*m.zeros, i);
    for (uint32_t j = 0; j < each; ++j) {
      const uint32_t zero = field(word, j, m.bits);
      all_of_other_version = all_of_other_version && zero == other;
      if (!v1 || zero != most) continue;
      return fail(
          "{}: the stored zero of group {}, output {} is {}, which some GPTQ implementations read as {} and others as "
          "0; save the checkpoint as gptq_v2",
          m.zeros->where, i / row, i % row * each + j, most, most + 1);
    }
  }
  if (m.must_be_symmetric && all_of_other_version) {
    return fail(
        "{}: the configuration says sym, whose zeros are {}, yet as {} every zero is {}: checkpoint_format is wrong",
        m.zeros->where, middle(m), v1 ? "gptq (v1)" : "gptq_v2", v1 ? middle(m) + 1 : middle(m) - 1);
  }
  return {};
}

Result<void> check_byte_zeros(const QuantisedModule& m) {
  for (size_t i = 0; i < m.zeros->bytes.size(); ++i) {
    const int32_t zero = signed_byte(*m.zeros, i);
    if (zero < -middle(m) || zero >= middle(m)) {
      return fail("{}: element {} is {}, which {} bits do not hold", m.zeros->where, i, zero, m.bits);
    }
  }
  return {};
}

}  // namespace

uint32_t word_at(const TensorView& tensor, size_t i) {
  uint32_t word = 0;
  std::memcpy(&word, tensor.bytes.data() + i * sizeof word, sizeof word);
  return word;
}

bool is_gptq(QuantMethod method) {
  return method == QuantMethod::gptq || method == QuantMethod::gptq_v2;
}

bool is_quantised(const Checkpoint& checkpoint, const QuantConfig& quant, const std::string& module) {
  if (quant.method == QuantMethod::none) return false;
  return checkpoint.has(module + (quant.method == QuantMethod::compressed_tensors ? ".weight_packed" : ".qweight"));
}

Result<QuantisedModule> find_quantised_module(const Checkpoint& checkpoint, const QuantConfig& quant,
                                              const std::string& module, int32_t outputs, int32_t inputs) {
  const bool compressed = quant.method == QuantMethod::compressed_tensors;
  const std::string where = fmt::format("{}: {}", checkpoint.dir().string(), module);
  QuantisedModule m;
  m.method = quant.method;
  m.bits = quant.bits;
  m.n = outputs;
  m.k = inputs;
  m.must_be_symmetric = quant.symmetric && quant.symmetric_is_stated;
  auto weight = checkpoint.require(module + (compressed ? ".weight_packed" : ".qweight"));
  auto scales = checkpoint.require(module + (compressed ? ".weight_scale" : ".scales"));
  if (!weight) return tl::unexpected(weight.error());
  if (!scales) return tl::unexpected(scales.error());
  m.weight = std::move(*weight);
  m.scales = std::move(*scales);
  m.zeros = checkpoint.find(module + (compressed ? ".weight_zero_point" : ".qzeros"));
  m.group_index = checkpoint.find(module + (compressed ? ".weight_g_idx" : ".g_idx"));
  read_packing(m.weight.entry->shape, m);
  if (m.bits != 4 && m.bits != 8) return fail("{}: values of {} bits: only 4 and 8 are served", where, m.bits);
  const bool awq = m.method == QuantMethod::awq;
  if (awq && m.bits != 4) return fail("{}: AWQ in {} bits: only 4 are served", where, m.bits);
  read_groups(quant.group_size, m);
  if (awq && inputs % m.group_size != 0) {
    return fail("{}: {} inputs do not divide into groups of {}", where, inputs, m.group_size);
  }
  if (compressed) {
    if (!quant.symmetric && !m.zeros) return fail("{} is asymmetric and has no weight_zero_point", where);
    if (const auto shape = checkpoint.find(module + ".weight_shape")) {
      if (auto ok = check_stated_shape(*shape, outputs, inputs); !ok) return tl::unexpected(ok.error());
    }
  } else if (!m.zeros) {
    return fail("{}: no tensor named {}.qzeros", checkpoint.dir().string(), module);
  }
  if (awq && m.group_index) return fail("{}.g_idx: AWQ has no group index", where);
  if (auto ok = check_module_shapes(m); !ok) return tl::unexpected(ok.error());
  if (m.group_index) {
    if (auto ok = read_bytes(*m.group_index); !ok) return tl::unexpected(ok.error());
    if (is_empty_index(m) || (compressed && is_unset_index(*m.group_index))) m.group_index.reset();
  }
  return m;
}

Result<void> read_module(QuantisedModule& m, bool weight) {
  if (auto ok = read_bytes(m.scales); !ok) return ok;
  if (m.zeros) {
    if (auto ok = read_bytes(*m.zeros); !ok) return ok;
  }
  return weight ? read_bytes(m.weight) : Result<void>{};
}

Result<void> check_module_shapes(const QuantisedModule& m) {
  const int32_t each = values_per_word(m);
  if (is_gptq(m.method) && m.k % each != 0) {
    return fail("{}: {} inputs do not pack into words of {}", m.weight.where, m.k, each);
  }
  if (m.method != QuantMethod::compressed_tensors && m.n % each != 0) {
    return fail("{}: {} outputs do not pack into words of {}", m.weight.where, m.n, each);
  }
  Result<void> weight, scales, zeros;
  switch (m.method) {
    case QuantMethod::awq:
      weight = expect(m.weight, {m.k, m.n / each}, false);
      scales = expect(m.scales, {m.groups, m.n}, true);
      if (m.zeros) zeros = expect(*m.zeros, {m.groups, m.n / each}, false);
      break;
    case QuantMethod::compressed_tensors:
      weight = expect(m.weight, {m.n, words_for(m, m.k)}, false);
      scales = expect(m.scales, {m.n, m.groups}, true);
      if (m.zeros && !is_bytes(*m.zeros)) zeros = expect(*m.zeros, {words_for(m, m.n), m.groups}, false);
      if (m.zeros && is_bytes(*m.zeros) && m.zeros->entry->shape != m.scales.entry->shape) {
        zeros = fail("{} has shape {}, expected {}", m.zeros->where, shape_text(m.zeros->entry->shape),
                     shape_text(m.scales.entry->shape));
      }
      break;
    default:
      weight = expect(m.weight, {m.k / each, m.n}, false);
      scales = expect(m.scales, {m.groups, m.n}, true);
      if (m.zeros) zeros = expect(*m.zeros, {m.groups, m.n / each}, false);
      break;
  }
  for (const auto* ok : {&weight, &scales, &zeros}) {
    if (!*ok) return *ok;
  }
  return m.group_index ? expect(*m.group_index, {m.k}, false) : Result<void>{};
}

Result<void> check_module_values(const QuantisedModule& m) {
  if (const auto i = first_not_finite(*m.scales.entry->dtype, m.scales.bytes)) {
    return fail("{}: element {} is not finite", m.scales.where, *i);
  }
  if (m.group_index) {
    for (int32_t i = 0; i < m.k; ++i) {
      const auto group = static_cast<int32_t>(word_at(*m.group_index, static_cast<size_t>(i)));
      if (group < 0 || group >= m.groups) {
        return fail("{}: input {} is of group {}, there are {} groups", m.group_index->where, i, group, m.groups);
      }
    }
  }
  if (m.zeros && is_bytes(*m.zeros)) return check_byte_zeros(m);
  return is_gptq(m.method) && m.zeros ? check_gptq_zeros(m) : Result<void>{};
}

int32_t group_of(const QuantisedModule& m, int32_t input) {
  return m.group_index ? static_cast<int32_t>(word_at(*m.group_index, static_cast<size_t>(input)))
                       : input / m.group_size;
}

float scale_of(const QuantisedModule& m, int32_t group, int32_t output) {
  const size_t i = m.method == QuantMethod::compressed_tensors
                       ? static_cast<size_t>(output) * static_cast<size_t>(m.groups) + static_cast<size_t>(group)
                       : static_cast<size_t>(group) * static_cast<size_t>(m.n) + static_cast<size_t>(output);
  return kernels::load_float(m.scales.bytes.data(), *m.scales.entry->dtype, i);
}

int32_t zero_of(const QuantisedModule& m, int32_t group, int32_t output) {
  if (!m.zeros) return middle(m);
  if (is_bytes(*m.zeros)) {
    return middle(m) + signed_byte(*m.zeros, static_cast<size_t>(output) * static_cast<size_t>(m.groups) +
                                                 static_cast<size_t>(group));
  }
  return static_cast<int32_t>(stored_zero(m, group, output)) + (m.method == QuantMethod::gptq ? 1 : 0);
}

void read_input(const QuantisedModule& m, int32_t input, int32_t first, int32_t count, uint8_t* values) {
  const auto k = static_cast<size_t>(input), n = static_cast<size_t>(m.n);
  const auto each = static_cast<size_t>(values_per_word(m));
  const auto place = static_cast<uint32_t>(k % each);
  switch (m.method) {
    case QuantMethod::awq:
      for (int32_t o = first; o < first + count;) {
        const uint32_t word = word_at(m.weight, k * (n / 8) + static_cast<size_t>(o / 8));
        uint8_t eight[8];
        for (size_t j = 0; j < 8; ++j) eight[j] = static_cast<uint8_t>(field(word, kAwqNibble[j], 4));
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
        const size_t word = o * static_cast<size_t>(words_for(m, m.k)) + k / each;
        values[i] = static_cast<uint8_t>(field(word_at(m.weight, word), place, m.bits));
      }
      break;
    default:
      for (int32_t i = 0; i < count; ++i) {
        const auto o = static_cast<size_t>(first + i);
        values[i] = static_cast<uint8_t>(field(word_at(m.weight, k / each * n + o), place, m.bits));
      }
      break;
  }
}

}  // namespace lorikeet::model
