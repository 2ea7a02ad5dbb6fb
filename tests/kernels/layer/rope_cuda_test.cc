#include "kernels/layer/rope_cuda.h"

#include <tuple>

#include "tests/kernels/attention/kv_memory.h"
#include "tests/kernels/base/cuda_test.h"

namespace lorikeet::kernels {
namespace {

struct Shape {
  int32_t heads;
  int32_t kv_heads;
  int32_t head_dim;
  bool bias;
  bool norm;
  int32_t log_n_length;
};

// What the kernel should make of one head, in double: (bias, norm, rotation, log-n).
std::vector<double> expected_head(const float* x, const float* bias, const float* norm, double epsilon,
                                  const std::vector<float>& inverse_frequencies, int32_t position, double factor,
                                  bool rotate, double log_n) {
  const size_t half = inverse_frequencies.size();
  std::vector<double> y(2 * half);
  double squares = 0;
  for (size_t i = 0; i < 2 * half; i++) {
    y[i] = static_cast<double>(x[i]) + (bias == nullptr ? 0 : bias[i]);
    squares += y[i] * y[i];
  }
  if (norm != nullptr) {
    for (size_t i = 0; i < 2 * half; i++)
      y[i] *= norm[i] / std::sqrt(squares / static_cast<double>(2 * half) + epsilon);
  }
  if (!rotate) return y;
  std::vector<double> rotated(2 * half);
  for (size_t i = 0; i < half; i++) {
    const float angle = static_cast<float>(position) * inverse_frequencies[i];
    const double c = std::cos(static_cast<double>(angle)) * factor;
    const double s = std::sin(static_cast<double>(angle)) * factor;
    rotated[i] = (y[i] * c - y[i + half] * s) * log_n;
    rotated[i + half] = (y[i + half] * c + y[i] * s) * log_n;
  }
  return rotated;
}

class RopeCuda : public CudaTest, public ::testing::WithParamInterface<std::tuple<Dtype, KvDtype>> {};

TEST_P(RopeCuda, RotatesQueriesAndStoresKeysAndValuesInTheirBlocks) {
  const auto [dtype, kv_dtype] = GetParam();
  std::mt19937 random{4};
  const std::vector<Shape> shapes = {{4, 2, 128, true, false, 0},
                                     {5, 1, 128, false, true, 0},
                                     {2, 2, 64, true, true, 8},
                                     {40, 8, 128, true, false, 2048}};
  for (const Shape& shape : shapes) {
    const int32_t block_size = 16;
    const int32_t num_blocks = 6;
    const float epsilon = 1e-6F;
    const float factor = 1.125F;
    const int32_t head_dim = shape.head_dim;
    const int32_t row_heads = shape.heads + 2 * shape.kv_heads;
    const std::vector<int32_t> positions = {0, 1, 7, 8, 31000, 131071, 4000};
    const std::vector<int32_t> slots = {0, 17, 95, -1, 40, 16, 63};
    const std::vector<int32_t> tables = {0, 0, 1, 0, 1, 0, 0};
    const auto tokens = static_cast<int32_t>(positions.size());

    std::vector<std::vector<float>> frequencies(2);
    std::vector<float> all_frequencies;
    for (size_t t = 0; t < 2; t++) {
      for (int32_t i = 0; i < head_dim / 2; i++) {
        frequencies[t].push_back(
            std::pow(t == 0 ? 1e6F : 3e4F, -2.0F * static_cast<float>(i) / static_cast<float>(head_dim)));
      }
      all_frequencies.insert(all_frequencies.end(), frequencies[t].begin(), frequencies[t].end());
    }
    const HalfTensor qkv = random_halves(static_cast<size_t>(tokens) * row_heads * head_dim, dtype, random);
    const std::vector<float> bias = random_floats(static_cast<size_t>(row_heads) * head_dim, random);
    const std::vector<float> q_norm = random_floats(static_cast<size_t>(head_dim), random, 0.3F, 1);
    const std::vector<float> k_norm = random_floats(static_cast<size_t>(head_dim), random, 0.3F, 1);

    const DeviceBuffer device_positions = to_device(positions);
    const DeviceBuffer device_frequencies = to_device(all_frequencies);
    const DeviceBuffer device_tables = to_device(tables);
    const DeviceBuffer cos_sin = poisoned(static_cast<uint64_t>(tokens) * head_dim * 4);
    RopeAnglesArgs angles;
    angles.positions = device_positions.as<int32_t>();
    angles.inverse_frequencies = device_frequencies.as<float>();
    angles.table_of_token = device_tables.as<int32_t>();
    angles.factor = factor;
    angles.tokens = tokens;
    angles.head_dim = head_dim;
    angles.cos_sin = cos_sin.as<float>();
    rope_angles_cuda(angles, stream_);

    const DeviceBuffer device_qkv = to_device(qkv.stored);
    const DeviceBuffer device_bias = to_device(bias);
    const DeviceBuffer device_q_norm = to_device(q_norm);
    const DeviceBuffer device_k_norm = to_device(k_norm);
    const DeviceBuffer device_slots = to_device(slots);
    const uint64_t elements = static_cast<uint64_t>(num_blocks) * shape.kv_heads * block_size * head_dim;
    DeviceCache cache;
    cache.keys = zeroed(elements * size_of(kv_dtype));
    cache.values = zeroed(elements * size_of(kv_dtype));
    cache.key_scales = zeroed(elements / static_cast<uint64_t>(head_dim) * sizeof(float));
    cache.value_scales = zeroed(elements / static_cast<uint64_t>(head_dim) * sizeof(float));
    RopeArgs args;
    args.qkv = device_qkv.data();
    args.dtype = dtype;
    args.bias = shape.bias ? device_bias.as<float>() : nullptr;
    args.q_norm = shape.norm ? device_q_norm.as<float>() : nullptr;
    args.k_norm = shape.norm ? device_k_norm.as<float>() : nullptr;
    args.norm_epsilon = epsilon;
    args.cos_sin = cos_sin.as<float>();
    args.positions = device_positions.as<int32_t>();
    args.log_n_length = shape.log_n_length;
    args.kv_slots = device_slots.as<int32_t>();
    args.tokens = tokens;
    args.heads = shape.heads;
    args.cache = cache.layer(kv_dtype, shape.kv_heads, block_size, head_dim);
    rope_and_store_kv_cuda(args, stream_);

    std::vector<double> expected_q;
    std::vector<double> expected_keys(elements);
    std::vector<double> expected_values(elements);
    for (int32_t t = 0; t < tokens; t++) {
      const auto position = positions[static_cast<size_t>(t)];
      const double log_n = shape.log_n_length > 0 && position + 1 > shape.log_n_length
                               ? std::log(position + 1.0) / std::log(static_cast<double>(shape.log_n_length))
                               : 1;
      for (int32_t h = 0; h < row_heads; h++) {
        const bool is_q = h < shape.heads;
        const bool is_v = h >= shape.heads + shape.kv_heads;
        const float* norm = !shape.norm || is_v ? nullptr : is_q ? q_norm.data() : k_norm.data();
        const std::vector<double> y =
            expected_head(&qkv.values[(static_cast<size_t>(t) * row_heads + h) * head_dim],
                          shape.bias ? &bias[static_cast<size_t>(h) * head_dim] : nullptr, norm, epsilon,
                          frequencies[static_cast<size_t>(tables[static_cast<size_t>(t)])], position, factor, !is_v,
                          is_q ? log_n : 1);
        if (is_q) {
          expected_q.insert(expected_q.end(), y.begin(), y.end());
        } else if (const int32_t slot = slots[static_cast<size_t>(t)]; slot >= 0) {
          const int32_t kv_head = (h - shape.heads) % shape.kv_heads;
          const size_t place =
              ((static_cast<size_t>(slot / block_size) * shape.kv_heads + kv_head) * block_size + slot % block_size) *
              head_dim;
          std::copy(y.begin(), y.end(), (is_v ? expected_values : expected_keys).begin() + static_cast<int64_t>(place));
        }
      }
    }
    std::vector<float> q;
    const std::vector<float> all = to_values(to_host<uint16_t>(device_qkv), dtype);
    for (int32_t t = 0; t < tokens; t++) {
      const int64_t begin = static_cast<int64_t>(t) * row_heads * head_dim;
      q.insert(q.end(), all.begin() + begin, all.begin() + begin + shape.heads * head_dim);
    }
    EXPECT_TRUE(near_reference(q, expected_q, tolerance_of(dtype)));
    const double kv_tolerance = kv_tolerance_of(kv_dtype);
    const StoredHeads keys = {to_host<uint8_t>(cache.keys), to_host<float>(cache.key_scales)};
    const StoredHeads values = {to_host<uint8_t>(cache.values), to_host<float>(cache.value_scales)};
    EXPECT_TRUE(near_reference(kv_values(keys, kv_dtype, head_dim), expected_keys, kv_tolerance));
    EXPECT_TRUE(near_reference(kv_values(values, kv_dtype, head_dim), expected_values, kv_tolerance));
  }
}

INSTANTIATE_TEST_SUITE_P(, RopeCuda,
                         ::testing::Combine(::testing::Values(Dtype::f16, Dtype::bf16),
                                            ::testing::Values(KvDtype::f16, KvDtype::bf16, KvDtype::f8_e4m3)),
                         [](const auto& test) {
                           return dtype_name(std::get<0>(test.param)) + "With" + kv_name(std::get<1>(test.param));
                         });

}  // namespace
}  // namespace lorikeet::kernels
