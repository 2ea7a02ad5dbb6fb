#include "model/checkpoint/linear_loader.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>

#include "model/checkpoint/stored_floats.h"
#include "model/checkpoint/tensor_names.h"

namespace lorikeet::model {
namespace {

constexpr uint64_t kPiece = 8u << 20;  // bytes of a tensor that is looked at and not kept

bool is_floating(const TensorEntry& entry) {
  return entry.dtype == kernels::Dtype::f32 || entry.dtype == kernels::Dtype::f16 ||
         entry.dtype == kernels::Dtype::bf16;
}

// The bytes of a tensor of floats piece by piece; offsets in bytes.
Result<void> for_each_piece(const TensorView& tensor,
                            const std::function<Result<void>(uint64_t, std::span<const uint8_t>)>& look) {
  const uint64_t size = tensor.entry->end - tensor.entry->begin;
  std::vector<uint8_t> piece(std::min(kPiece, size));
  for (uint64_t offset = 0; offset < size; offset += kPiece) {
    const std::span<uint8_t> part(piece.data(), std::min(kPiece, size - offset));
    if (auto ok = tensor.file->read(*tensor.entry, offset, part); !ok) return ok;
    if (auto ok = look(offset, part); !ok) return ok;
  }
  return {};
}

Result<void> expect_finite(const TensorView& tensor, uint64_t offset, std::span<const uint8_t> bytes) {
  const kernels::Dtype dtype = *tensor.entry->dtype;
  const auto i = first_not_finite(dtype, bytes);
  if (!i) return {};
  return fail("{}: element {} is not finite", tensor.where, offset / kernels::size_of(dtype) + *i);
}

Result<TensorView> find_matrix(const Checkpoint& checkpoint, const std::string& name, int32_t rows, int32_t columns) {
  auto tensor = checkpoint.require(name);
  if (!tensor) return tensor;
  if (auto ok = expect_floats(*tensor, {rows, columns}); !ok) return tl::unexpected(ok.error());
  return tensor;
}

kernels::DenseWeight cut_columns(const kernels::DenseWeight& whole, Range columns) {
  if (columns.size() == whole.k) return whole;
  const size_t element = kernels::size_of(whole.dtype);
  const size_t row_bytes = static_cast<size_t>(columns.size()) * element;
  auto copy = std::make_shared<std::vector<uint8_t>>(static_cast<size_t>(whole.n) * row_bytes);
  for (int32_t n = 0; n < whole.n; ++n) {
    std::memcpy(copy->data() + static_cast<size_t>(n) * row_bytes,
                static_cast<const uint8_t*>(whole.row(n)) + static_cast<size_t>(columns.begin) * element, row_bytes);
  }
  return {whole.n, columns.size(), whole.dtype, copy->data(), copy};
}

// The bias of a projection's module, all of it: empty where the architecture has none there. AutoGPTQ writes an
// all-zero one on every layer.
Result<std::vector<float>> load_bias(const Checkpoint& checkpoint, const ModelConfig& config, const ModulePlace& place,
                                     Projection p) {
  const std::string name = place.module + ".bias";
  if (!has_bias(config, p) && !checkpoint.has(name)) return std::vector<float>();
  auto values = load_vector(checkpoint, name, place.outputs);
  if (!values || has_bias(config, p)) return values;
  const auto wrong = std::count_if(values->begin(), values->end(), [](float value) { return value != 0; });
  if (wrong == 0) return std::vector<float>();
  return fail("{}: {} of {} values are not zero, and {} has no bias there", checkpoint.find(name)->where, wrong,
              values->size(), name_of(config.architecture));
}

// A quantised module with its values, those of the weight itself only if they are wanted, all checked.
Result<QuantisedModule> load_module(const Checkpoint& checkpoint, const QuantConfig& quant, const std::string& name,
                                    int32_t outputs, int32_t inputs, bool with_weight) {
  auto module = find_quantised_module(checkpoint, quant, name, outputs, inputs);
  if (!module) return module;
  if (auto ok = read_module(*module, with_weight); !ok) return tl::unexpected(ok.error());
  if (auto ok = check_module_values(*module); !ok) return tl::unexpected(ok.error());
  return module;
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

Result<std::vector<float>> load_vector(const Checkpoint& checkpoint, const std::string& name, int32_t size) {
  auto tensor = checkpoint.require(name);
  if (!tensor) return tl::unexpected(tensor.error());
  if (auto ok = expect_floats(*tensor, {size}); !ok) return tl::unexpected(ok.error());
  if (auto ok = read_bytes(*tensor); !ok) return tl::unexpected(ok.error());
  if (auto ok = expect_finite(*tensor, 0, tensor->bytes); !ok) return tl::unexpected(ok.error());
  std::vector<float> values(static_cast<size_t>(size));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = kernels::load_float(tensor->bytes.data(), *tensor->entry->dtype, i);
  }
  return values;
}

Result<kernels::DenseWeight> load_matrix(const Checkpoint& checkpoint, const std::string& name, int32_t rows,
                                         int32_t columns, Range part) {
  const auto tensor = find_matrix(checkpoint, name, rows, columns);
  if (!tensor) return tl::unexpected(tensor.error());
  const kernels::Dtype dtype = *tensor->entry->dtype;
  const uint64_t row = static_cast<uint64_t>(columns) * kernels::size_of(dtype);
  const uint64_t first = static_cast<uint64_t>(part.begin) * row, size = static_cast<uint64_t>(part.size()) * row;
  const std::shared_ptr<uint8_t[]> memory(new uint8_t[size]);  // not set to 0 first
  const std::span<uint8_t> bytes(memory.get(), size);
  if (auto ok = tensor->file->read(*tensor->entry, first, bytes); !ok) return tl::unexpected(ok.error());
  if (auto ok = expect_finite(*tensor, first, bytes); !ok) return tl::unexpected(ok.error());
  return kernels::DenseWeight{part.size(), columns, dtype, memory.get(), memory};
}

Result<kernels::DenseWeight> load_head(const Checkpoint& checkpoint, const ModelConfig& config, Range part) {
  const std::string name(kLmHeadName);
  if (!is_quantised(checkpoint, config.quant, name)) {
    return load_matrix(checkpoint, name + ".weight", config.vocab_size, config.hidden_size, part);
  }
  const auto module = load_module(checkpoint, config.quant, name, config.vocab_size, config.hidden_size, true);
  if (!module) return tl::unexpected(module.error());
  return dequantise(*module, part, {0, config.hidden_size});
}

Result<void> check_head(const Checkpoint& checkpoint, const ModelConfig& config) {
  const std::string name(kLmHeadName);
  if (!is_quantised(checkpoint, config.quant, name)) {
    return check_matrix(checkpoint, name + ".weight", config.vocab_size, config.hidden_size);
  }
  const auto module = load_module(checkpoint, config.quant, name, config.vocab_size, config.hidden_size, false);
  return module ? Result<void>{} : tl::unexpected(module.error());
}

Result<void> check_matrix(const Checkpoint& checkpoint, const std::string& name, int32_t rows, int32_t columns) {
  const auto tensor = find_matrix(checkpoint, name, rows, columns);
  if (!tensor) return tl::unexpected(tensor.error());
  return for_each_piece(
      *tensor, [&](uint64_t offset, std::span<const uint8_t> bytes) { return expect_finite(*tensor, offset, bytes); });
}

Result<bool> is_same(const TensorView& stored, const TensorView& loaded) {
  const TensorEntry &a = *stored.entry, &b = *loaded.entry;
  if (a.shape != b.shape || !is_floating(a) || !is_floating(b)) return false;
  SameWeights weights;
  const size_t a_size = kernels::size_of(*a.dtype), b_size = kernels::size_of(*b.dtype);
  auto read = for_each_piece(stored, [&](uint64_t offset, std::span<const uint8_t> bytes) -> Result<void> {
    weights.compare(*a.dtype, bytes, *b.dtype,
                    loaded.bytes.subspan(offset / a_size * b_size, bytes.size() / a_size * b_size));
    return {};
  });
  if (!read) return tl::unexpected(read.error());
  return weights.same();
}

Result<void> check_tied_head(const Checkpoint& checkpoint, const ModelConfig& config) {
  const std::string head_name = std::string(kLmHeadName) + ".weight", table_name = embedding_name(config) + ".weight";
  if (!config.tie_word_embeddings || !checkpoint.has(head_name)) return {};
  const auto head = checkpoint.require(head_name);
  const auto table = find_matrix(checkpoint, table_name, config.vocab_size, config.hidden_size);
  if (!table) return tl::unexpected(table.error());
  const TensorEntry &a = *head->entry, &b = *table->entry;
  SameWeights weights;
  std::vector<uint8_t> beside;
  const bool comparable = a.shape == b.shape && is_floating(a);
  Result<void> read;
  if (comparable) {
    const size_t a_size = kernels::size_of(*a.dtype), b_size = kernels::size_of(*b.dtype);
    read = for_each_piece(*head, [&](uint64_t offset, std::span<const uint8_t> bytes) -> Result<void> {
      beside.resize(bytes.size() / a_size * b_size);
      if (auto ok = table->file->read(b, offset / a_size * b_size, beside); !ok) return ok;
      weights.compare(*a.dtype, bytes, *b.dtype, beside);
      return {};
    });
  }
  if (!read) return read;
  if (comparable && weights.same()) return {};
  return fail("{}: config.json ties the embeddings, yet {} differs from {}", checkpoint.dir().string(), head_name,
              table_name);
}

Result<LinearWeights> load_linear(const Checkpoint& checkpoint, const ModelConfig& config, const ShardPlan& plan,
                                  int rank, int32_t layer, Projection p, EightBit eight_bit) {
  const ModulePlace place = place_of(config, layer, p);
  const Range outputs = plan.outputs(p, rank), inputs = plan.inputs(p, rank);
  const Range rows = {place.first_output + outputs.begin, place.first_output + outputs.end};
  LinearWeights linear;
  if (is_quantised(checkpoint, config.quant, place.module)) {
    const auto module = load_module(checkpoint, config.quant, place.module, place.outputs, input_size(config, p), true);
    if (!module) return tl::unexpected(module.error());
    if (module->bits == 8 && eight_bit == EightBit::floats) {
      linear.weight = dequantise(*module, rows, inputs);
    } else {
      linear.weight = repack_int4(*module, rows, inputs);
    }
  } else {
    auto dense = load_matrix(checkpoint, place.module + ".weight", place.outputs, input_size(config, p), rows);
    if (!dense) return tl::unexpected(dense.error());
    linear.weight = cut_columns(*dense, inputs);
  }
  auto bias = load_bias(checkpoint, config, place, p);
  if (!bias) return tl::unexpected(bias.error());
  if (!bias->empty()) linear.bias.assign(bias->begin() + rows.begin, bias->begin() + rows.end);
  return linear;
}

Result<void> check_linear(const Checkpoint& checkpoint, const ModelConfig& config, int32_t layer, Projection p) {
  const ModulePlace place = place_of(config, layer, p);
  if (place.first_output > 0) return {};  // a fused module is looked at once
  Result<void> weight;
  if (is_quantised(checkpoint, config.quant, place.module)) {
    const auto module =
        load_module(checkpoint, config.quant, place.module, place.outputs, input_size(config, p), false);
    if (!module) return tl::unexpected(module.error());
  } else {
    weight = check_matrix(checkpoint, place.module + ".weight", place.outputs, input_size(config, p));
  }
  if (!weight) return weight;
  const auto bias = load_bias(checkpoint, config, place, p);
  return bias ? Result<void>{} : tl::unexpected(bias.error());
}

}  // namespace lorikeet::model
