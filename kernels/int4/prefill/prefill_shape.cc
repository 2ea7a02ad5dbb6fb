#include <algorithm>
#include <iterator>
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
constexpr int32_t kFewestUnits = 4;  // of a cluster that shares areas

// Microseconds on an H200, fitted to every shape of `int4_gemm_gpu_bench --sweep` for 80 to 2,048 tokens: 3 % off in the
// root mean square, and what they choose takes 0.3 % longer than the best, with `uneven` set so that it does.
struct Costs {
  double launch;    // what a product takes besides
  double units[4];  // of an area of kAreaColumns
  double work;      // of a unit of kMostColumns for every cluster: the clocks fall with the work
  double end;       // of each area that a cluster makes alone: its sums are stored
  double share;     // of sums that are left and joined
  double uneven;    // more, where a cluster shares two areas
  double part;      // one more of the parts whose sums must be joined, of kMostColumns
};
constexpr Costs kOfBlocks = {2.0, {0.726, 0.803, 0.896, 1.1}, 0.346, 1.56, 4.87, 2.5, 2.18};
constexpr Costs kOfPairs = {3.0, {0.393, 0.433, 0.482, 0.573}, 0.21, 1.0, 3.54, 3.0, 1.05};

double cost(const PackedInt4Weight& weight, int32_t m, const Int4PrefillShape& shape, int32_t multiprocessors) {
  const Costs& costs = shape.cluster == 1 ? kOfBlocks : kOfPairs;
  const auto* columns = std::find(std::begin(kAreaColumns), std::end(kAreaColumns), shape.columns);
  const int4::PrefillDivision division = int4_prefill_division(weight, m, shape);
  const int64_t shared = divide_up(division.shared_steps(), int64_t{shape.clusters});
  const int64_t units = int64_t{division.alone} * division.units + shared;
  const double width = static_cast<double>(shape.columns) / kMostColumns;
  const auto work = static_cast<double>(int64_t{division.areas} * division.units * shape.cluster);
  double sum = costs.launch + costs.units[columns - std::begin(kAreaColumns)] * static_cast<double>(units) +
               costs.work * width * work / multiprocessors + costs.end * division.alone;
  if (shape.shares) {
    const bool even = division.equal_parts();
    const int64_t parts = divide_up(int64_t{division.units}, shared) + (even ? 0 : 1);
    sum += costs.share + (even ? 0 : costs.uneven) + costs.part * width * static_cast<double>(parts - 1);
  }
  return sum;
}

// All in which so many blocks make an area.
void add_shapes(const PackedInt4Weight& weight, int32_t m, int32_t multiprocessors, int32_t cluster,
                std::vector<Int4PrefillShape>& shapes) {
  const int32_t clusters = multiprocessors / cluster;
  for (const int32_t columns : kAreaColumns) {
    const int32_t areas = divide_up(weight.tiles, int4::kPrefillTiles) * divide_up(m, columns);
    const int32_t whole = divide_up(areas, clusters);
    shapes.push_back({columns, cluster, std::min(areas, clusters), whole, false});
    if (m >= kInt4WholeAreaRows) continue;
    // Equal parts of every area.
    for (int32_t parts = 2; parts <= kMostParts && parts * kFewestUnits <= weight.units; parts++) {
      if (areas * parts <= clusters) shapes.push_back({columns, cluster, areas * parts, 0, true});
    }
    for (int32_t alone = std::max(0, whole - 2); alone < whole; alone++) {
      const int32_t left = areas - alone * clusters;
      const int64_t steps = static_cast<int64_t>(left) * weight.units;
      if (steps < int64_t{kFewestUnits} * clusters) continue;
      if (left % clusters == 0 || clusters % left == 0) continue;  // as above
      shapes.push_back({columns, cluster, clusters, alone, true});
    }
  }
}

}  // namespace

int4::PrefillDivision int4_prefill_division(const PackedInt4Weight& weight, int32_t m, const Int4PrefillShape& shape) {
  int4::PrefillDivision division;
  division.areas = divide_up(weight.tiles, int4::kPrefillTiles) * divide_up(m, shape.columns);
  division.units = weight.units;
  division.clusters = shape.clusters;
  division.alone = shape.shares ? shape.alone : divide_up(division.areas, shape.clusters);
  return division;
}

std::vector<Int4PrefillShape> int4_prefill_shapes(const PackedInt4Weight& weight, int32_t m, int32_t multiprocessors) {
  std::vector<Int4PrefillShape> shapes;
  add_shapes(weight, m, multiprocessors, 1, shapes);
  if (multiprocessors >= int4::kMostBlocks) add_shapes(weight, m, multiprocessors, int4::kMostBlocks, shapes);
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
