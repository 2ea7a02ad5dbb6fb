#include "kernels/lora/lora_rows.h"

#include <glog/logging.h>

#include <algorithm>
#include <numeric>

#include "kernels/base/rounding.h"

namespace lorikeet::kernels {

LoraRowPlan::LoraRowPlan(int32_t max_rows, int32_t max_slots, int32_t max_rank)
    : max_rows_(max_rows), max_slots_(max_slots), max_rank_(max_rank) {
  CHECK_GE(max_rows, 0);
  CHECK_GE(max_slots, 0);
  CHECK_GT(max_rank, 0);
  // Every slot and the base model may end with a tile that is not full.
  for (const int32_t rows : {std::min(max_rows, kLoraDecodeRows), max_rows}) {
    const int32_t tiles = std::min(rows, rows / kTileRows + max_slots + 1);
    max_tiles_ = std::max(max_tiles_, static_cast<uint64_t>(tiles));
    max_units_ = std::max(max_units_,
                          static_cast<uint64_t>(tiles) * static_cast<uint64_t>(divide_up(max_rank, unit_ranks(rows))));
  }
}

uint64_t LoraRowPlan::tiles_offset() const {
  return order_offset() + (static_cast<uint64_t>(max_rows_) * sizeof(int32_t) + 15) / 16 * 16;
}
uint64_t LoraRowPlan::units_offset() const {
  return tiles_offset() + max_tiles_ * sizeof(LoraTile);
}
uint64_t LoraRowPlan::bytes() const {
  return units_offset() + max_units_ * sizeof(LoraTile);
}

uint64_t LoraRowPlan::write(std::span<const int32_t> slots, std::span<const int32_t> ranks, void* host) const {
  CHECK_LE(slots.size(), static_cast<size_t>(max_rows_));
  CHECK_LE(ranks.size(), static_cast<size_t>(max_slots_));
  const auto rows = static_cast<int32_t>(slots.size());
  auto* bytes = static_cast<unsigned char*>(host);
  auto* order = reinterpret_cast<int32_t*>(bytes + order_offset());
  auto* tiles = reinterpret_cast<LoraTile*>(bytes + tiles_offset());
  auto* units = reinterpret_cast<LoraTile*>(bytes + units_offset());
  std::iota(order, order + rows, 0);
  // As unsigned numbers, -1 comes last.
  const auto slot_of = [&](int32_t row) { return static_cast<uint32_t>(slots[static_cast<size_t>(row)]); };
  std::sort(order, order + rows,
            [&](int32_t a, int32_t b) { return slot_of(a) != slot_of(b) ? slot_of(a) < slot_of(b) : a < b; });

  LoraCounts counts{};
  for (int32_t first = 0; first < rows;) {
    const int32_t slot = slots[static_cast<size_t>(order[first])];
    int32_t count = 1;
    while (count < kTileRows && first + count < rows && slot_of(order[first + count]) == slot_of(order[first])) {
      count++;
    }
    tiles[counts.tiles++] = {slot, first, count, 0};
    if (slot >= 0) {
      CHECK_LT(static_cast<size_t>(slot), ranks.size());
      CHECK_LE(ranks[static_cast<size_t>(slot)], max_rank_);
      counts.adapter_tiles++;
      for (int32_t r = 0; r < ranks[static_cast<size_t>(slot)]; r += unit_ranks(rows)) {
        units[counts.units++] = {slot, first, count, r};
      }
    }
    first += count;
  }
  *reinterpret_cast<LoraCounts*>(bytes) = counts;
  return units_offset() + static_cast<uint64_t>(counts.units) * sizeof(LoraTile);
}

LoraRows LoraRowPlan::on_device(const void* device, int32_t rows) const {
  CHECK_LE(rows, max_rows_);
  const auto* bytes = static_cast<const unsigned char*>(device);
  LoraRows view;
  view.counts = reinterpret_cast<const LoraCounts*>(bytes);
  view.order = reinterpret_cast<const int32_t*>(bytes + order_offset());
  view.tiles = reinterpret_cast<const LoraTile*>(bytes + tiles_offset());
  view.units = reinterpret_cast<const LoraTile*>(bytes + units_offset());
  view.rows = rows;
  view.max_rank = max_rank_;
  view.most_tiles = static_cast<int32_t>(max_tiles_);
  view.most_units = static_cast<int32_t>(max_units_);
  return view;
}

}  // namespace lorikeet::kernels
