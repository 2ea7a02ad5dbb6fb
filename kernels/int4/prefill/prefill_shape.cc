#include <algorithm>
#include <string_view>
#include <utility>

#include "kernels/base/rounding.h"
#include "kernels/int4/base/layout.h"
#include "kernels/int4/prefill/int4_prefill.h"
#include "kernels/int4/prefill/prefill_walk.h"

namespace lorikeet::kernels {
namespace {

constexpr int32_t kAreaColumns[] = {64, 80, 96, 128};
constexpr int32_t kMostColumns = 128;
constexpr int32_t kMostParts = 8;    // equal ones of an area
constexpr int32_t kFewestUnits = 4;  // of a block that shares areas

// Microseconds on an H200, fitted to every shape of `int4_gemm_gpu_bench --sweep` for 80 to 4,096 tokens, whole and for
// two and four ranks: 4 % off in the root mean square, and what they choose takes 0.3 % longer than the best.
struct UnitCost {
  double unit;  // of an area
  double part;  // one more of the parts whose sums must be joined
};
UnitCost cost_of(int32_t columns) {
  switch (columns) {
    case 64:
      return {0.72, 0.6};
    case 80:
      return {0.80, 1.0};
    case 96:
      return {0.90, 1.4};
    default:
      return {1.10, 2.0};
  }
}
constexpr double kEndCost = 2.9;     // of each area that a block makes or ends: its sums are stored
constexpr double kJoinCost = 3.2;    // of sums that are left and joined
constexpr double kUnevenCost = 3.0;  // more, where a block shares two areas
constexpr double kWorkCost = 0.4;    // of a unit of 128 columns for every multiprocessor: the clocks fall with the work

double cost(const PackedInt4Weight& weight, int32_t m, const Int4PrefillShape& shape, int32_t multiprocessors) {
  const UnitCost costs = cost_of(shape.columns);
  const int4::PrefillDivision division = int4_prefill_division(weight, m, shape);
  const int64_t shared = divide_up(division.shared_steps(), int64_t{shape.blocks});
  const int64_t units = int64_t{division.alone} * division.units + shared;
  const double work = static_cast<double>(int64_t{division.areas} * division.units * shape.columns) / kMostColumns;
  double sum = costs.unit * static_cast<double>(units) + kWorkCost * work / multiprocessors + kEndCost * division.alone;
  if (shape.shares) {
    const bool even = division.equal_parts();
    const int64_t parts = divide_up(int64_t{division.units}, shared) + (even ? 0 : 1);
    sum += kEndCost + kJoinCost + (even ? 0 : kUnevenCost) + costs.part * static_cast<double>(parts - 1);
  }
  return sum;
}

}  // namespace

int4::PrefillDivision int4_prefill_division(const PackedInt4Weight& weight, int32_t m, const Int4PrefillShape& shape) {
  int4::PrefillDivision division;
  division.areas = divide_up(weight.tiles, int4::kPrefillTiles) * divide_up(m, shape.columns);
  division.units = weight.units;
  division.blocks = shape.blocks;
  division.alone = shape.shares ? shape.alone : divide_up(division.areas, shape.blocks);
  return division;
}

std::vector<Int4PrefillShape> int4_prefill_shapes(const PackedInt4Weight& weight, int32_t m, int32_t multiprocessors) {
  std::vector<Int4PrefillShape> shapes;
  for (const int32_t columns : kAreaColumns) {
    const int32_t areas = divide_up(weight.tiles, int4::kPrefillTiles) * divide_up(m, columns);
    const int32_t whole = divide_up(areas, multiprocessors);
    shapes.push_back({columns, std::min(areas, multiprocessors), whole, false});
    if (m >= kInt4WholeAreaRows) continue;
    // Equal parts of every area.
    for (int32_t parts = 2; parts <= kMostParts && parts * kFewestUnits <= weight.units; parts++) {
      if (areas * parts <= multiprocessors) shapes.push_back({columns, areas * parts, 0, true});
    }
    for (int32_t alone = std::max(0, whole - 2); alone < whole; alone++) {
      const int32_t left = areas - alone * multiprocessors;
      const int64_t steps = static_cast<int64_t>(left) * weight.units;
      if (steps < int64_t{kFewestUnits} * multiprocessors) continue;
      if (left % multiprocessors == 0 || multiprocessors % left == 0) continue;  // as above
      shapes.push_back({columns, multiprocessors, alone, true});
    }
  }
  return shapes;
}

Int4PrefillShape shape_int4_prefill(const PackedInt4Weight& weight, int32_t m, int32_t multiprocessors) {
  Int4PrefillShape chosen;
  double least = 0;
  for (const Int4PrefillShape& shape : int4_prefill_shapes(weight, m, multiprocessors)) {
    const double of_shape = cost(weight, m, shape, multiprocessors);
    if (least > 0 && of_shape >= least) continue;
    chosen = shape;
    least = of_shape;
  }
  return chosen;
}

Result<Int4PrefillScratch> Int4PrefillScratch::make(int32_t multiprocessors) {
  constexpr std::string_view kPurpose = "the sums of the int4 products";
  const auto blocks = static_cast<uint64_t>(multiprocessors);
  Result<DeviceBuffer> sums = DeviceBuffer::allocate(
      2 * blocks * int4::kPrefillTiles * int4::kTileRows * kMostColumns * sizeof(float), kPurpose);
  if (!sums) return tl::unexpected(sums.error());
  Result<DeviceBuffer> arrived = DeviceBuffer::allocate(blocks * sizeof(int), kPurpose);
  if (!arrived) return tl::unexpected(arrived.error());
  const Stream of_device;  // its default one
  fill_bytes(arrived->data(), 0, arrived->bytes(), of_device);
  of_device.synchronize();
  return Int4PrefillScratch{std::move(*sums), std::move(*arrived)};
}

}  // namespace lorikeet::kernels
