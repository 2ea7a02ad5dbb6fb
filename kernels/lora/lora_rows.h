// Which adapter every row of a step takes, in the form that the LoRA kernels read: rows of one slot behind each other,
// cut into tiles for the tensor cores. Made by the host for every step, read from device memory, so that a captured
// graph serves any mix: the kernels' grids depend on the number of rows alone.
#pragma once

#include <cstdint>
#include <span>

namespace lorikeet::kernels {

// Up to so many rows (of a launch, padding included) the adapters' weights bound the time: work is cut finely.
inline constexpr int32_t kLoraDecodeRows = 64;

// Rows order[first .. first + count) take `slot`; -1: the base model.
struct alignas(16) LoraTile {
  int32_t slot;
  int32_t first;
  int32_t count;       // at most LoraRowPlan::kTileRows
  int32_t first_rank;  // of a unit: the ranks from here on, LoraRowPlan::unit_ranks of them
};

struct alignas(16) LoraCounts {
  int32_t units;          // tiles times parts of the ranks, the work of the shrink kernel
  int32_t adapter_tiles;  // tiles with an adapter; those of the base model follow
  int32_t tiles;
  int32_t unused;
};

// Device memory.
struct LoraRows {
  const LoraCounts* counts = nullptr;
  const LoraTile* tiles = nullptr;
  const int32_t* order = nullptr;  // [rows] indices of rows
  const LoraTile* units = nullptr;
  int32_t rows = 0;        // of the launch, padding (slot -1) included
  int32_t max_rank = 0;    // of any adapter
  int32_t most_tiles = 0;  // entries of `tiles` and `units`, used or not
  int32_t most_units = 0;
};

// The layout of that description in one block of memory, of which the host fills a copy.
class LoraRowPlan {
 public:
  LoraRowPlan(int32_t max_rows, int32_t max_slots, int32_t max_rank);

  static constexpr int32_t kTileRows = 16;
  static constexpr int32_t unit_ranks(int32_t rows) { return rows <= kLoraDecodeRows ? 8 : 16; }

  uint64_t bytes() const;

  // Describes rows whose slots are given (-1: none), slot s holding an adapter whose largest rank is ranks[s]. `host`
  // has bytes(); returns how many of them are used and must be copied.
  uint64_t write(std::span<const int32_t> slots, std::span<const int32_t> ranks, void* host) const;

  // The description at `device`, for launches over `rows` rows: as many as `write` was given.
  LoraRows on_device(const void* device, int32_t rows) const;

 private:
  uint64_t order_offset() const { return sizeof(LoraCounts); }
  uint64_t tiles_offset() const;
  uint64_t units_offset() const;

  int32_t max_rows_;
  int32_t max_slots_;
  int32_t max_rank_;
  uint64_t max_tiles_ = 0;
  uint64_t max_units_ = 0;
};

}  // namespace lorikeet::kernels
