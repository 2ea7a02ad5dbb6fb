// Which shapes the int4 product takes on devices that are not here.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "fmt/format.h"
#include "kernels/int4/decode/int4_decode.h"
#include "kernels/int4/int4_gemm_cuda.h"

namespace lorikeet::kernels {
namespace {

struct Shape {
  int32_t n, k;
  bool paired;
  int32_t projections;
};

// The products of a Qwen of 14, 7 and 0.5 billion parameters, whole and cut over 2, 4 and 8 ranks.
std::vector<Shape> products() {
  std::vector<Shape> shapes;
  for (const auto& [hidden, q, kv, intermediate] : std::vector<std::array<int32_t, 4>>{
           {5120, 5120, 1024, 13824}, {3584, 3584, 512, 18944}, {896, 896, 128, 4864}, {5120, 5120, 5120, 13696}}) {
    for (const int32_t ranks : {1, 2, 4, 8}) {
      if (kv % (ranks * 64) != 0 || intermediate % (ranks * 32) != 0) continue;
      shapes.push_back({(q + 2 * kv) / ranks, hidden, false, 3});
      shapes.push_back({hidden, q / ranks, false, 1});
      shapes.push_back({2 * intermediate / ranks, hidden, true, 2});
      shapes.push_back({hidden, intermediate / ranks, false, 1});
    }
  }
  return shapes;
}

PackedInt4Weight weight_of(const Shape& shape, int32_t scale_block, bool asymmetric) {
  PackedInt4Weight weight;
  weight.n = shape.n;
  weight.k = (shape.k + 31) / 32 * 32;
  weight.x_size = shape.k;
  weight.paired = shape.paired;
  weight.tiles = (shape.n + 15) / 16;
  weight.units = (shape.k + 127) / 128;
  weight.scale_block = scale_block;
  weight.asymmetric = asymmetric;
  return weight;
}

// From a slice of a Multi-Instance GPU to the largest.
std::vector<Int4DecodeDevice> devices() {
  std::vector<Int4DecodeDevice> all;
  for (int32_t multiprocessors = 14; multiprocessors <= 144; multiprocessors += 2) {
    for (const uint64_t kib : {99, 163, 227}) {
      Int4DecodeDevice device;
      device.multiprocessors = multiprocessors;
      device.shared_bytes_per_block = kib << 10;
      all.push_back(device);  // the code of 8.0
      if (kib < 227) continue;
      device.clusters = device.groups = true;
      for (const int32_t lost : {0, 3}) {  // clusters find no room on some multiprocessors
        device.pairs = multiprocessors / 2 - lost;
        device.quads = multiprocessors / 4 - lost;
        all.push_back(device);
      }
    }
  }
  return all;
}

void expect_fits(const PackedInt4Weight& weight, int32_t m, const Int4DecodeWish& wish,
                 const Int4DecodeDevice& device) {
  const Int4DecodeShape shape = shape_int4_decode(weight, m, Dtype::f16, wish, device);
  const auto what = [&] {
    return fmt::format("{} x {}, {} tokens, rank {}, {} multiprocessors of {} KiB, clusters {}", weight.n, weight.k, m,
                       wish.lora.max_rank, device.multiprocessors, device.shared_bytes_per_block >> 10,
                       device.clusters);
  };
  ASSERT_GE(shape.depth, 2) << what();
  ASSERT_GT(shape.bytes, 0U) << what();
  ASSERT_LE(shape.bytes, device.shared_bytes_per_block) << what();
  ASSERT_LE(shape.bytes_beside, device.shared_bytes_per_block) << what();
  ASSERT_EQ(shape.blocks % shape.cluster, 0) << what();
  // What waits for the others must run beside them.
  if (wish.lora.projections > 0) {
    ASSERT_FALSE(shape.streams_x) << what();
    ASSERT_LE(shape.blocks, device.multiprocessors) << what();
  }
}

TEST(Int4Shapes, FitEveryDeviceForEveryNumberOfTokens) {
  for (const Shape& shape : products()) {
    for (const bool asymmetric : {false, true}) {
      const PackedInt4Weight weight = weight_of(shape, asymmetric ? 32 : 128, asymmetric);
      for (const Int4DecodeDevice& device : devices()) {
        for (const int32_t m : {1, 2, 3, 4, 5, 8, 9, 16, 17, 24, 32, 33, 40, 48, 56, 64}) {
          expect_fits(weight, m, {}, device);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(Int4Shapes, WithLoraFitWhereTheProductTakesIt) {
  int taken = 0;
  for (const Shape& shape : products()) {
    const PackedInt4Weight weight = weight_of(shape, 128, false);
    for (const Int4DecodeDevice& device : devices()) {
      for (const int32_t m : {1, 2, 4, 8}) {
        for (const int32_t rank : {8, 16, 64, kMostFusedRank}) {
          LoraLinear linear;
          linear.projections = shape.projections;
          linear.inputs = shape.k;
          linear.outputs = {shape.n / shape.projections / 8 * 8, shape.n / shape.projections / 8 * 8,
                            shape.n / shape.projections / 8 * 8};
          if (!int4_decode_takes_lora(weight, m, linear, rank, device)) continue;
          taken++;
          Int4DecodeWish wish;
          wish.lora = {shape.projections, rank};
          expect_fits(weight, m, wish, device);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
  EXPECT_GT(taken, 1000);
}

}  // namespace
}  // namespace lorikeet::kernels
