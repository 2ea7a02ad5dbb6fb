#include "model/checkpoint/linear_loader.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <utility>

#include "model/checkpoint/tensor_names.h"

namespace lorikeet::model {
namespace {

bool is_floating(const TensorEntry& entry) {
  return entry.dtype == kernels::Dtype::f32 || entry.dtype == kernels::Dtype::f16 ||
         entry.dtype == kernels::Dtype::bf16;
}

// Rows are cut by moving the pointer into the file; columns need a copy.
kernels::DenseWeight cut_matrix(const kernels::DenseWeight& whole, Range rows, Range columns) {
  kernels::DenseWeight part = whole;
  part.n = rows.size();
  part.k = columns.size();
  part.data = whole.row(rows.begin);
  if (columns.size() == whole.k) return part;
  const size_t element = kernels::size_of(whole.dtype);
  const size_t row_bytes = static_cast<size_t>(part.k) * element;
  auto copy = std::make_shared<std::vector<uint8_t>>(static_cast<size_t>(part.n) * row_bytes);
  for (int32_t n = 0; n < part.n; ++n) {
    std::memcpy(copy->data() + static_cast<size_t>(n) * row_bytes,
                static_cast<const uint8_t*>(whole.row(rows.begin + n)) + static_cast<size_t>(columns.begin) * element,
                row_bytes);
  }
  part.data = copy->data();
  part.owner = std::move(copy);
  return part;
}

// A compressed-tensors module says its shape a second time, as two I64 (or I32).
Result<void> check_stated_shape(const TensorView& tensor, int32_t outputs, int32_t inputs) {
  const TensorEntry& entry = *tensor.entry;
  const size_t element = entry.dtype_name == "I64" ? 8 : entry.dtype_name == "I32" ? 4 : 0;
  if (entry.shape != std::vector<int64_t>{2} || element == 0) {
    return fail("{} is {} {}, expected two I64", tensor.where, entry.dtype_name, shape_text(entry.shape));
  }
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

}  // namespace

Result<void> expect_floats(const TensorView& tensor, std::initializer_list<int64_t> shape) {
  const TensorEntry& entry = *tensor.entry;
  if (!std::equal(shape.begin(), shape.end(), entry.shape.begin(), entry.shape.end())) {
    return fail("{} has shape {}, expected {}", tensor.where, shape_text(entry.shape),
                shape_text(std::vector<int64_t>(shape)));
  }
  if (!is_floating(entry)) return fail("{} is {}, expected F32, F16 or BF16", tensor.where, entry.dtype_name);
  return {};
}

Result<std::vector<float>> load_vector(const TensorView& tensor, int32_t size, Range part) {
  if (auto ok = expect_floats(tensor, {size}); !ok) return tl::unexpected(ok.error());
  std::vector<float> values(static_cast<size_t>(part.size()));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = kernels::load_float(tensor.bytes.data(), *tensor.entry->dtype, static_cast<size_t>(part.begin) + i);
    if (!std::isfinite(values[i]))
      return fail("{}: element {} is not finite", tensor.where, part.begin + static_cast<int64_t>(i));
  }
  return values;
}

Result<kernels::DenseWeight> view_matrix(const TensorView& tensor, int32_t rows, int32_t columns) {
  if (auto ok = expect_floats(tensor, {rows, columns}); !ok) return tl::unexpected(ok.error());
  kernels::DenseWeight weight;
  weight.n = rows;
  weight.k = columns;
  weight.dtype = *tensor.entry->dtype;
  weight.data = tensor.bytes.data();
  weight.owner = tensor.owner;
  return weight;
}

bool is_quantised(const Checkpoint& checkpoint, const QuantConfig& quant, const std::string& module) {
  if (quant.method == QuantMethod::none) return false;
  return checkpoint.has(module + (quant.method == QuantMethod::compressed_tensors ? ".weight_packed" : ".qweight"));
}

Result<Int4Module> find_int4_module(const Checkpoint& checkpoint, const QuantConfig& quant, const std::string& module,
                                    int32_t outputs, int32_t inputs) {
  const bool compressed = quant.method == QuantMethod::compressed_tensors;
  const bool awq = quant.method == QuantMethod::awq;
  Int4Module m;
  m.method = quant.method;
  m.n = outputs;
  m.k = inputs;
  m.group_size = quant.group_size < 0 ? inputs : quant.group_size;
  m.groups = (inputs + m.group_size - 1) / m.group_size;
  m.must_be_symmetric = quant.symmetric && quant.symmetric_is_stated;
  if (awq && inputs % m.group_size != 0) {
    return fail("{}: {}: {} inputs do not divide into groups of {}", checkpoint.dir().string(), module, inputs,
                m.group_size);
  }
  auto weight = checkpoint.require(module + (compressed ? ".weight_packed" : ".qweight"));
  auto scales = checkpoint.require(module + (compressed ? ".weight_scale" : ".scales"));
  if (!weight) return tl::unexpected(weight.error());
  if (!scales) return tl::unexpected(scales.error());
  m.weight = std::move(*weight);
  m.scales = std::move(*scales);
  m.zeros = checkpoint.find(module + (compressed ? ".weight_zero_point" : ".qzeros"));
  m.group_index = checkpoint.find(module + (compressed ? ".weight_g_idx" : ".g_idx"));
  if (compressed) {
    if (!quant.symmetric && !m.zeros) {
      return fail("{}: {} is asymmetric and has no weight_zero_point", checkpoint.dir().string(), module);
    }
    if (m.group_index && is_unset_index(*m.group_index)) m.group_index.reset();
    auto shape = checkpoint.require(module + ".weight_shape");
    if (!shape) return tl::unexpected(shape.error());
    if (auto ok = check_stated_shape(*shape, outputs, inputs); !ok) return tl::unexpected(ok.error());
  } else if (!m.zeros) {
    return fail("{}: no tensor named {}.qzeros", checkpoint.dir().string(), module);
  }
  if (awq && m.group_index) {
    return fail("{}: {}.g_idx: AWQ has no group index", checkpoint.dir().string(), module);
  }
  if (auto ok = check_int4_shapes(m); !ok) return tl::unexpected(ok.error());
  return m;
}

Result<LinearWeights> load_linear(const Checkpoint& checkpoint, const ShardPlan& plan, int rank, int32_t layer,
                                  Projection p) {
  const ModelConfig& config = plan.config();
  const ModulePlace place = place_of(config, layer, p);
  const Range outputs = plan.outputs(p, rank), inputs = plan.inputs(p, rank);
  const Range rows = {place.first_output + outputs.begin, place.first_output + outputs.end};
  LinearWeights linear;
  if (is_quantised(checkpoint, config.quant, place.module)) {
    auto module = find_int4_module(checkpoint, config.quant, place.module, place.outputs, input_size(config, p));
    if (!module) return tl::unexpected(module.error());
    if (auto ok = check_int4_values(*module); !ok) return tl::unexpected(ok.error());
    linear.weight = repack_int4(*module, rows, inputs);
  } else {
    auto dense = checkpoint.require(place.module + ".weight");
    if (!dense) return tl::unexpected(dense.error());
    auto whole = view_matrix(*dense, place.outputs, input_size(config, p));
    if (!whole) return tl::unexpected(whole.error());
    linear.weight = cut_matrix(*whole, rows, inputs);
  }

  const auto bias = checkpoint.find(place.module + ".bias");
  if (has_bias(config, p)) {
    if (!bias) return fail("{}: no tensor named {}.bias", checkpoint.dir().string(), place.module);
    auto values = load_vector(*bias, place.outputs, rows);
    if (!values) return tl::unexpected(values.error());
    linear.bias = std::move(*values);
  } else if (bias) {  // AutoGPTQ writes an all-zero one on every layer
    auto values = load_vector(*bias, place.outputs, {0, place.outputs});
    if (!values) return tl::unexpected(values.error());
    const auto wrong = std::count_if(values->begin(), values->end(), [](float value) { return value != 0; });
    if (wrong != 0) {
      return fail("{}: {} of {} values are not zero, and {} has no bias there", bias->where, wrong, values->size(),
                  name_of(config.architecture));
    }
  }
  return linear;
}

}  // namespace lorikeet::model
