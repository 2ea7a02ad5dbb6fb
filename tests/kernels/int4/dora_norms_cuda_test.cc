#include "kernels/int4/dora_norms_cuda.h"

#include "tests/kernels/base/cuda_test.h"
#include "tests/kernels/int4/random_int4.h"

namespace lorikeet::kernels {
namespace {

struct HostPair {
  std::vector<float> a, b;
  int32_t rank, inputs, outputs;
  float scale;

  HostPair(int32_t rank_, int32_t inputs_, int32_t outputs_, std::mt19937& random)
      : a(random_floats(static_cast<size_t>(rank_) * static_cast<size_t>(inputs_), random, 0.05F)),
        b(random_floats(static_cast<size_t>(outputs_) * static_cast<size_t>(rank_), random, 0.1F)),
        rank(rank_),
        inputs(inputs_),
        outputs(outputs_),
        scale(1.5F) {}

  // Of row `output` of W + scale * B A.
  double squared_norm(const std::vector<double>& row, int32_t output) const {
    double sum = 0;
    for (int32_t k = 0; k < inputs; k++) {
      double w = row[static_cast<size_t>(k)];
      for (int32_t r = 0; r < rank; r++) {
        w += static_cast<double>(scale) * static_cast<double>(b[static_cast<size_t>(output * rank + r)]) *
             static_cast<double>(a[static_cast<size_t>(r * inputs + k)]);
      }
      sum += w * w;
    }
    return sum;
  }
};

class DoraNormsCuda : public CudaTest {
 protected:
  struct DevicePair {
    DeviceBuffer a, b;
    DoraPair pair;
  };
  DevicePair on_device(const HostPair& host) {
    DevicePair device{to_device(host.a), to_device(host.b), {}};
    device.pair = {device.a.as<float>(), device.b.as<float>(), host.rank, host.inputs, host.outputs, host.scale};
    return device;
  }

  // Norms of `parts`, whose outputs follow each other in the packed weight.
  void expect_norms(const PackedInt4Weight& packed, const std::vector<const Int4Weight*>& parts,
                    const std::string& what) {
    const DeviceBuffer scratch = poisoned(dora_scratch_bytes(packed.k));
    int32_t first = 0;
    for (const Int4Weight* part : parts) {
      for (const int32_t rank : sizes({1, 7, 130}, {7, 130})) {
        const HostPair host(rank, part->x_size, part->n, random_);
        const DevicePair device = on_device(host);
        const DeviceBuffer norms = poisoned(static_cast<uint64_t>(part->n) * sizeof(float));
        dora_norms_cuda(packed, first, device.pair, scratch.data(), norms.as<float>(), stream_);
        std::vector<double> expected;
        for (int32_t i = 0; i < part->n; i++) expected.push_back(host.squared_norm(int4_row(*part, i), i));
        EXPECT_TRUE(near_reference(to_host<float>(norms), expected, tests::kHalfTolerance))
            << what << ", outputs from " << first << ", rank " << rank;
      }
      first += part->n;
    }
  }

  std::mt19937 random_{5};
};

TEST_F(DoraNormsCuda, OfEveryKindOfInt4Weight) {
  for (const Int4Kind& kind : {Int4Kind{128, false, false}, Int4Kind{64, true, false}, Int4Kind{0, true, true}}) {
    std::mt19937 same_kind(3);
    Int4Weight first = random_int4(48, 288, kind, same_kind);
    Int4Weight second = first;  // the same runs and permutation
    second.q[11] ^= 0x5;
    second.n = 40;
    second.q.resize(static_cast<size_t>(second.n) * static_cast<size_t>(second.k) / 2);
    std::vector<float> scale;
    std::vector<uint8_t> zero;
    for (int32_t r = 0; r < first.runs(); r++) {
      for (int32_t i = 0; i < second.n; i++) {
        scale.push_back(first.scale[static_cast<size_t>(r * first.n + i)]);
        zero.push_back(first.zero[static_cast<size_t>(r * first.n + i)]);
      }
    }
    second.scale = scale;
    second.zero = zero;
    const Int4Weight* parts[] = {&first, &second};
    const auto packed = PackedInt4Weight::pack(parts, stream_);
    ASSERT_TRUE(packed) << packed.error().message;
    expect_norms(*packed, {&first, &second}, "side by side");

    const Int4Weight gate = random_int4(44, 128, {128, kind.asymmetric, false}, random_);
    const Int4Weight up = random_int4(44, 128, {128, kind.asymmetric, false}, random_);
    const auto pair = PackedInt4Weight::pack_pair(gate, up, stream_);
    ASSERT_TRUE(pair) << pair.error().message;
    expect_norms(*pair, {&gate, &up}, "a pair");
  }
}

TEST_F(DoraNormsCuda, OfWeightsThatTakeSeveralPasses) {
  const Int4Weight weight = random_int4(640, 13824, {128, false, false}, random_);
  const Int4Weight* parts[] = {&weight};
  const auto packed = PackedInt4Weight::pack(parts, stream_);
  ASSERT_TRUE(packed) << packed.error().message;
  const DeviceBuffer scratch = poisoned(dora_scratch_bytes(packed->k));
  const HostPair host(2, weight.x_size, weight.n, random_);
  const DevicePair device = on_device(host);
  const DeviceBuffer norms = poisoned(static_cast<uint64_t>(weight.n) * sizeof(float));
  dora_norms_cuda(*packed, 0, device.pair, scratch.data(), norms.as<float>(), stream_);
  std::vector<double> expected;
  for (int32_t i = 0; i < weight.n; i++) expected.push_back(host.squared_norm(int4_row(weight, i), i));
  EXPECT_TRUE(near_reference(to_host<float>(norms), expected, tests::kHalfTolerance));
}

TEST_F(DoraNormsCuda, OfDenseWeights) {
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16}) {
    const int32_t inputs = 264, first = 5;
    const HalfTensor weight = random_halves(size_t{30} * inputs, dtype, random_, 0.1F);
    const DeviceBuffer device_weight = to_device(weight.stored);
    const HostPair host(9, inputs, 20, random_);
    const DevicePair device = on_device(host);
    const DeviceBuffer norms = poisoned(20 * sizeof(float));
    dora_norms_cuda(device_weight.data(), dtype, first, device.pair, norms.as<float>(), stream_);
    std::vector<double> expected;
    for (int32_t i = 0; i < 20; i++) {
      const auto begin = weight.values.begin() + static_cast<int64_t>(first + i) * inputs;
      expected.push_back(host.squared_norm({begin, begin + inputs}, i));
    }
    EXPECT_TRUE(near_reference(to_host<float>(norms), expected, tests::kFloat32Tolerance * 10)) << dtype_name(dtype);
  }
}

}  // namespace
}  // namespace lorikeet::kernels
