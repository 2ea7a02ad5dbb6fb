// Which shapes the int4 product takes on devices that are not here.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "kernels/int4/decode/int4_decode.h"
#include "kernels/int4/int4_gemm_cuda.h"
#include "kernels/int4/prefill/int4_prefill.h"
#include "kernels/int4/prefill/int4_warp_prefill.h"
#include "kernels/int4/prefill/prefill_walk.h"
#include "kernels/int4/prefill/warp_prefill_walk.h"

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

TEST(Int4Shapes, OfManyTokensFitEveryDeviceWithoutWarpgroups) {
  for (const Shape& shape : products()) {
    for (const bool asymmetric : {false, true}) {
      const PackedInt4Weight weight = weight_of(shape, asymmetric ? 32 : 128, asymmetric);
      for (const Int4DecodeDevice& device : devices()) {
        if (device.groups) continue;
        for (const int32_t m : {65, 80, 96, 97, 128, 129, 192, 256, 257, 384, 511, 512}) {
          const auto what = [&] {
            return fmt::format("{} x {}, {} tokens, {} multiprocessors of {} KiB", weight.n, weight.k, m,
                               device.multiprocessors, device.shared_bytes_per_block >> 10);
          };
          const Int4WarpPrefillShape chosen = shape_int4_warp_prefill(weight, m, device);
          bool offered = false;
          for (const Int4WarpPrefillShape& launch : int4_warp_prefill_shapes(weight, m, device)) {
            ASSERT_GE(launch.blocks, 1) << what();
            ASSERT_EQ(launch.bytes, static_cast<uint64_t>(int4::warp_prefill_shared_bytes(
                                        launch.columns, weight.scale_block, weight.asymmetric)))
                << what();
            ASSERT_LE(launch.bytes, device.shared_bytes_per_block) << what();
            // Of what is allocated: places for the sums of as many blocks as multiprocessors, and their counters.
            if (launch.shares) {
              ASSERT_LE(launch.blocks, device.multiprocessors) << what();
              ASSERT_LE(launch.sum_bytes, int4_warp_prefill_sum_bytes(device)) << what();
            }
            offered |= launch.columns == chosen.columns && launch.blocks == chosen.blocks;
          }
          ASSERT_TRUE(offered) << what();
        }
      }
    }
  }
}

// By warpgroups' steps: each unit of each area is one cluster's, no cluster has more than a unit more than another beside
// what it makes alone, and clusters that share an area come in the order of k and leave its sums in places of their own.
void expect_shares_out_every_unit(const int4::PrefillDivision& division) {
  const auto what = [&] {
    return fmt::format("{} areas of {} units, {} clusters, {} alone", division.areas, division.units, division.clusters,
                       division.alone);
  };
  std::vector<int32_t> made(static_cast<size_t>(division.areas), 0);  // of each area, units from the first on
  std::vector<int> place_of_area(static_cast<size_t>(2 * division.clusters), -1);
  std::vector<int> ended_by(static_cast<size_t>(division.clusters), -1);  // the area that counts there
  const int64_t steps = division.shared_steps();
  int64_t fewest = steps + 1;
  int64_t most = 0;
  std::vector<int4::PrefillPart> alone;
  for (int cluster = 0; cluster < division.clusters; cluster++) {
    int4::PrefillWalk walk(division, cluster);
    int4::PrefillPart part;
    int64_t shared = 0;
    while (walk.next(division, part)) {
      ASSERT_LT(part.area, division.areas) << what();
      ASSERT_LT(part.begin, part.end) << what();
      if (part.area < division.first_shared()) {
        alone.push_back(part);
        continue;
      }
      ASSERT_EQ(made[static_cast<size_t>(part.area)], part.begin) << what();
      made[static_cast<size_t>(part.area)] = part.end;
      shared += part.end - part.begin;
      if (part.end - part.begin == division.units) continue;
      const int64_t begin = int64_t{part.area - division.first_shared()} * division.units;
      int& taken = place_of_area[static_cast<size_t>(int4::place_of_sums(steps, cluster, division.clusters, begin))];
      ASSERT_EQ(taken, -1) << what() << ", cluster " << cluster;
      taken = part.area;
      ASSERT_EQ(int4::walker_of(begin + part.begin, steps, division.clusters), cluster) << what();
      ASSERT_EQ(int4::walker_of(begin + part.end - 1, steps, division.clusters), cluster) << what();
      int& ended = ended_by[static_cast<size_t>(int4::walker_of(begin + division.units - 1, steps, division.clusters))];
      if (ended < 0) ended = part.area;
      ASSERT_EQ(ended, part.area) << what() << ", cluster " << cluster;
    }
    fewest = std::min(fewest, shared);
    most = std::max(most, shared);
  }
  for (const int4::PrefillPart& part : alone) {
    ASSERT_EQ(part.begin, 0) << what();
    ASSERT_EQ(made[static_cast<size_t>(part.area)], 0) << what();
    made[static_cast<size_t>(part.area)] = part.end;
  }
  for (const int32_t units : made) ASSERT_EQ(units, division.units) << what();
  if (steps > 0) ASSERT_LE(most - fewest, 1) << what();
}

TEST(Int4Shapes, ShareOutEveryUnitOfManyTokensOnceAmongWarpgroups) {
  for (const Shape& shape : products()) {
    const PackedInt4Weight weight = weight_of(shape, 128, false);
    for (const int32_t multiprocessors : {1, 14, 16, 32, 46, 60, 114, 132, 144}) {
      for (const int32_t m : {65, 80, 96, 97, 128, 129, 192, 256, 257, 384, 512, 1023, 1024, 2048}) {
        const Int4PrefillShape chosen = shape_int4_prefill(weight, m, multiprocessors);
        bool offered = false;
        for (const Int4PrefillShape& launch : int4_prefill_shapes(weight, m, multiprocessors)) {
          ASSERT_GE(launch.clusters, 1);
          ASSERT_LE(launch.clusters * launch.cluster, multiprocessors);
          offered |= launch.columns == chosen.columns && launch.cluster == chosen.cluster &&
                     launch.clusters == chosen.clusters && launch.alone == chosen.alone &&
                     launch.shares == chosen.shares;
          const int4::PrefillDivision division = int4_prefill_division(weight, m, launch);
          ASSERT_EQ(division.shared_steps() > 0, launch.shares);
          // Where prompts are made in parts, a row's sums must not depend on where its area lies.
          if (m >= kInt4WholeAreaRows) ASSERT_FALSE(launch.shares);
          expect_shares_out_every_unit(division);
          if (HasFatalFailure()) return;
        }
        ASSERT_TRUE(offered);
      }
    }
  }
}

// Each step of each area is one block's, and blocks that share an area leave its sums in places of their own.
TEST(Int4Shapes, ShareOutEveryStepOfManyTokensOnce) {
  for (const auto& [areas, area_steps] : {std::pair{40, 80}, std::pair{1, 9}, std::pair{56, 27}, std::pair{7, 216}}) {
    const int64_t steps = int64_t{areas} * area_steps;
    for (int blocks = 1; blocks <= std::min<int64_t>(144, steps); blocks++) {
      int64_t next = 0;
      std::vector<int> place_of_area(static_cast<size_t>(2 * blocks), -1);
      for (int block = 0; block < blocks; block++) {
        ASSERT_EQ(int4::walk_begin(steps, block, blocks), next);
        const int64_t end = int4::walk_begin(steps, block + 1, blocks);
        ASSERT_GT(end, next);
        for (; next < end; next++) {
          ASSERT_EQ(int4::walker_of(next, steps, blocks), block) << "of " << blocks << ", step " << next;
          const auto area = static_cast<int>(next / area_steps);
          const int64_t begin = int64_t{area} * area_steps;
          if (int4::walker_of(begin, steps, blocks) == int4::walker_of(begin + area_steps - 1, steps, blocks)) continue;
          int& taken = place_of_area[static_cast<size_t>(int4::place_of_sums(steps, block, blocks, begin))];
          if (taken < 0) taken = area;
          ASSERT_EQ(taken, area) << "block " << block << " of " << blocks;
        }
      }
      ASSERT_EQ(next, steps);
    }
  }
}

}  // namespace
}  // namespace lorikeet::kernels
