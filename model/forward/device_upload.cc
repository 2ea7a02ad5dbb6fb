#include "model/forward/device_upload.h"

#include <algorithm>
#include <utility>

#include "kernels/dense/dense_weight_cuda.h"

namespace lorikeet::model {
namespace {

constexpr uint64_t kStagingBytes = 32ULL << 20;  // of values that are converted at a time

using kernels::DenseWeight;
using kernels::DeviceBuffer;
using kernels::Int4Weight;

const Int4Weight* int4_of(const LinearWeights& linear) {
  return std::get_if<Int4Weight>(&linear.weight);
}

int32_t outputs_of(const LinearWeights& linear) {
  return std::visit([](const auto& weight) { return weight.n; }, linear.weight);
}

int32_t inputs_of(const LinearWeights& linear) {
  const Int4Weight* int4 = int4_of(linear);
  return int4 != nullptr ? int4->x_size : std::get<DenseWeight>(linear.weight).k;
}

// Whether two weights can be one product.
bool alike(const LinearWeights& a, const LinearWeights& b) {
  const Int4Weight* x = int4_of(a);
  const Int4Weight* y = int4_of(b);
  if (x == nullptr || y == nullptr) return x == y;
  return x->k == y->k && x->x_size == y->x_size && x->run_begin == y->run_begin && x->permutation == y->permutation;
}

}  // namespace

Result<DeviceUpload> DeviceUpload::make(kernels::Dtype dtype) {
  DeviceUpload upload;
  upload.dtype_ = dtype;
  auto stream = kernels::Stream::make();
  if (!stream) return tl::unexpected(stream.error());
  upload.stream_ = *std::move(stream);
  auto staging = DeviceBuffer::allocate(kStagingBytes, "weights on their way to the device");
  if (!staging) return tl::unexpected(staging.error());
  upload.staging_ = *std::move(staging);
  return upload;
}

Result<DeviceBuffer> DeviceUpload::floats(const std::vector<float>& values) {
  auto buffer = DeviceBuffer::allocate(values.size() * sizeof(float), "norms and biases");
  if (buffer && !values.empty()) kernels::copy_to_device(buffer->data(), values.data(), buffer->bytes(), stream_);
  stream_.synchronize();
  return buffer;
}

Result<void> DeviceUpload::convert(const DenseWeight& from, unsigned char* to) {
  const uint64_t element = kernels::size_of(from.dtype);
  const uint64_t count = static_cast<uint64_t>(from.n) * static_cast<uint64_t>(from.k);
  if (from.dtype == dtype_) {
    kernels::copy_to_device(to, from.data, count * element, stream_);
    return {};
  }
  const uint64_t at_once = kStagingBytes / element;
  for (uint64_t first = 0; first < count; first += at_once) {
    const uint64_t part = std::min(at_once, count - first);
    kernels::copy_to_device(staging_.data(), static_cast<const unsigned char*>(from.data) + first * element,
                            part * element, stream_);
    kernels::convert_cuda(staging_.data(), from.dtype, to + first * kernels::size_of(dtype_), dtype_,
                          static_cast<int64_t>(part), stream_);
  }
  return {};
}

Result<DeviceBuffer> DeviceUpload::rows(std::span<const DenseWeight* const> parts) {
  uint64_t count = 0;
  for (const DenseWeight* part : parts) count += static_cast<uint64_t>(part->n) * static_cast<uint64_t>(part->k);
  auto buffer = DeviceBuffer::allocate(count * kernels::size_of(dtype_), "dense weights");
  if (!buffer) return buffer;
  auto* to = buffer->as<unsigned char>();
  for (const DenseWeight* part : parts) {
    if (auto ok = convert(*part, to); !ok) return tl::unexpected(ok.error());
    to += static_cast<uint64_t>(part->n) * static_cast<uint64_t>(part->k) * kernels::size_of(dtype_);
  }
  stream_.synchronize();
  return buffer;
}

Result<DeviceProduct> DeviceUpload::product(std::span<const LinearWeights* const> parts, bool paired,
                                            int32_t first_output) {
  DeviceProduct product;
  product.first_output = first_output;
  if (int4_of(*parts[0]) != nullptr) {
    std::vector<const Int4Weight*> weights;
    for (const LinearWeights* part : parts) weights.push_back(int4_of(*part));
    auto packed = paired ? kernels::PackedInt4Weight::pack_pair(*weights[0], *weights[1], stream_)
                         : kernels::PackedInt4Weight::pack(weights, stream_);
    if (!packed) return tl::unexpected(packed.error());
    product.weight = *std::move(packed);
    return product;
  }
  std::vector<const DenseWeight*> weights;
  DeviceDense dense;
  for (const LinearWeights* part : parts) {
    weights.push_back(&std::get<DenseWeight>(part->weight));
    dense.n += weights.back()->n;
    dense.k = weights.back()->k;
  }
  auto data = rows(weights);
  if (!data) return tl::unexpected(data.error());
  dense.data = *std::move(data);
  product.weight = std::move(dense);
  return product;
}

Result<DeviceLinear> DeviceUpload::linear(std::span<const LinearWeights* const> parts, bool paired) {
  DeviceLinear linear;
  linear.inputs = inputs_of(*parts[0]);
  if (linear.inputs % 8 != 0)
    return fail("a projection has {} inputs on this rank, not a multiple of 8", linear.inputs);
  bool all_alike = true;
  for (const LinearWeights* part : parts) {
    linear.outputs.push_back(outputs_of(*part));
    all_alike &= alike(*parts[0], *part);
  }
  const size_t together = all_alike ? parts.size() : 1;
  int32_t first_output = 0;
  for (size_t i = 0; i < parts.size(); i += together) {
    auto made = product(parts.subspan(i, together), paired && all_alike, first_output);
    if (!made) return tl::unexpected(made.error());
    linear.products.push_back(*std::move(made));
    first_output += linear.outputs[i];
  }
  return linear;
}

Result<DeviceLayer> DeviceUpload::layer(const LayerWeights& weights) {
  DeviceLayer layer;
  const auto take_floats = [this](DeviceBuffer& to, const std::vector<float>& values) -> Result<void> {
    auto made = floats(values);
    if (!made) return tl::unexpected(made.error());
    to = *std::move(made);
    return {};
  };
  const auto take_linear = [&](DeviceLinear& to, std::initializer_list<Projection> projections,
                               bool paired) -> Result<void> {
    std::vector<const LinearWeights*> parts;
    for (const Projection p : projections) parts.push_back(&weights.at(p));
    auto made = linear(parts, paired);
    if (!made) return tl::unexpected(made.error());
    to = *std::move(made);
    return {};
  };
  std::vector<float> bias;
  for (const Projection p : {Projection::q, Projection::k, Projection::v}) {
    bias.insert(bias.end(), weights.at(p).bias.begin(), weights.at(p).bias.end());
  }
  Result<void> ok = take_floats(layer.input_norm, weights.input_norm);
  if (ok) ok = take_floats(layer.post_attention_norm, weights.post_attention_norm);
  if (ok) ok = take_floats(layer.q_norm, weights.q_norm);
  if (ok) ok = take_floats(layer.k_norm, weights.k_norm);
  if (ok) ok = take_floats(layer.qkv_bias, bias);
  if (ok) ok = take_linear(layer.qkv, {Projection::q, Projection::k, Projection::v}, false);
  if (ok) ok = take_linear(layer.o, {Projection::o}, false);
  if (ok) ok = take_linear(layer.gate_up, {Projection::gate, Projection::up}, true);
  if (ok) ok = take_linear(layer.down, {Projection::down}, false);
  if (!ok) return tl::unexpected(ok.error());
  return layer;
}

}  // namespace lorikeet::model
