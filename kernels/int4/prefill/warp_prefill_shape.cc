#include <glog/logging.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "kernels/base/rounding.h"
#include "kernels/int4/prefill/int4_warp_prefill.h"
#include "kernels/int4/prefill/warp_prefill_walk.h"

namespace lorikeet::kernels {
namespace {

constexpr int32_t kAreaColumns[] = {80, 96, 128};
constexpr int32_t kMostParts = 4;    // equal ones of an area
constexpr int32_t kFewestSteps = 8;  // of a block that shares areas

// Microseconds on an H200 (`int4_gemm_gpu_bench --cards`, which they follow to 4 % in the root mean square): of a step,
// and of a block besides (its beginning and end).
struct StepCost {
  double step, block;
};
StepCost cost_of(int32_t columns) {
  switch (columns) {
    case 80:
      return {0.63, 4.5};
    case 96:
      return {0.73, 4.8};
    default:
      return {0.83, 6.7};
  }
}
constexpr double kExchangeCost = 3.5;  // of the sums of an area that a block leaves, and perhaps joins

uint64_t shared_bytes(int32_t columns, int32_t scale_block, bool asymmetric) {
  return static_cast<uint64_t>(int4::warp_prefill_shared_bytes(columns, scale_block, asymmetric));
}

struct Areas {
  int32_t count = 0;
  int32_t steps = 0;  // of each
};

Areas areas_of(const PackedInt4Weight& weight, int32_t m, int32_t columns) {
  return {divide_up(weight.tiles, int4::kAreaTiles) * divide_up(m, columns), divide_up(weight.k, int4::kStepInputs)};
}

double cost(const PackedInt4Weight& weight, int32_t m, const Int4WarpPrefillShape& shape, int32_t multiprocessors) {
  const Areas areas = areas_of(weight, m, shape.columns);
  const StepCost costs = cost_of(shape.columns);
  const int64_t steps = divide_up(static_cast<int64_t>(areas.count) * areas.steps, static_cast<int64_t>(shape.blocks));
  double exchange = 0;
  if (shape.shares) {
    // Equal parts of one area, or the end of one and the beginning of another.
    const int exchanged = shape.blocks % areas.count == 0 ? 1 : 2;
    exchange = exchanged * kExchangeCost;
  }
  return divide_up(shape.blocks, multiprocessors) * (costs.step * static_cast<double>(steps) + costs.block + exchange);
}

}  // namespace

std::vector<Int4WarpPrefillShape> int4_warp_prefill_shapes(const PackedInt4Weight& weight, int32_t m,
                                                           const Int4DecodeDevice& device) {
  std::vector<Int4WarpPrefillShape> shapes;
  for (const int32_t columns : kAreaColumns) {
    const Areas areas = areas_of(weight, m, columns);
    Int4WarpPrefillShape shape;
    shape.columns = columns;
    shape.bytes = shared_bytes(columns, weight.scale_block, weight.asymmetric);
    if (shape.bytes > device.shared_bytes_per_block) continue;
    const auto add = [&](int32_t blocks) {
      shape.blocks = blocks;
      shape.shares = blocks != areas.count;
      shape.sum_bytes =
          shape.shares ? 2 * static_cast<uint64_t>(blocks) * static_cast<uint64_t>(int4::area_sum_bytes(columns)) : 0;
      shapes.push_back(shape);
    };
    add(areas.count);
    for (int32_t parts = 2; parts <= kMostParts && parts * kFewestSteps <= areas.steps; parts++) {
      if (areas.count * parts <= device.multiprocessors) add(areas.count * parts);
    }
    const int64_t steps = static_cast<int64_t>(areas.count) * areas.steps;
    const auto even = static_cast<int32_t>(std::min<int64_t>(steps / kFewestSteps, device.multiprocessors));
    if (even > 0 && even != areas.count && even != shape.blocks) add(even);
  }
  return shapes;
}

Int4WarpPrefillShape shape_int4_warp_prefill(const PackedInt4Weight& weight, int32_t m,
                                             const Int4DecodeDevice& device) {
  Int4WarpPrefillShape chosen;
  double least = 0;
  for (const Int4WarpPrefillShape& shape : int4_warp_prefill_shapes(weight, m, device)) {
    const double of_shape = cost(weight, m, shape, device.multiprocessors);
    if (least > 0 && of_shape >= least) continue;
    chosen = shape;
    least = of_shape;
  }
  CHECK_GT(chosen.blocks, 0) << "no area finds room in " << device.shared_bytes_per_block << " bytes";
  return chosen;
}

uint64_t int4_warp_prefill_sum_bytes(const Int4DecodeDevice& device) {
  uint64_t place = 0;
  for (const int32_t columns : kAreaColumns) {
    if (shared_bytes(columns, int4::kUnitInputs, false) > device.shared_bytes_per_block) continue;
    place = std::max(place, static_cast<uint64_t>(int4::area_sum_bytes(columns)));
  }
  return 2 * static_cast<uint64_t>(device.multiprocessors) * place;
}

Result<Int4WarpPrefillScratch> Int4WarpPrefillScratch::make(const Int4DecodeDevice& device) {
  constexpr std::string_view kPurpose = "the sums of the int4 products";
  Result<DeviceBuffer> sums = DeviceBuffer::allocate(int4_warp_prefill_sum_bytes(device), kPurpose);
  if (!sums) return tl::unexpected(sums.error());
  Result<DeviceBuffer> arrived =
      DeviceBuffer::allocate(static_cast<uint64_t>(device.multiprocessors) * sizeof(int), kPurpose);
  if (!arrived) return tl::unexpected(arrived.error());
  const Stream of_device;  // its default one
  fill_bytes(arrived->data(), 0, arrived->bytes(), of_device);
  of_device.synchronize();
  return Int4WarpPrefillScratch{std::move(*sums), std::move(*arrived)};
}

}  // namespace lorikeet::kernels
