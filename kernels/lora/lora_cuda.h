// The device version of LoRA over a batch (Hu et al., 2021): y = f * (W x + scale * B (A x)), another adapter for every
// row if need be; f is DoRA's factor of an output, where an adapter has one.
//
// Two kernels for all projections that take the same x: `shrink` (v = A x) and `expand` (y from B v). `shrink` needs
// nothing but x, so it may be queued before the base product, or behind it and run beside it. Which rows take which
// adapter, and where the adapters are, is read from device memory; grids depend on the number of rows alone: a captured
// graph serves every mix.
//
// A row's result depends on its adapter, x and y alone, neither on the other rows nor on how many they are: A x is
// summed over slices of 256 inputs, slices over parts of 2,048, parts in order, and B v over the ranks in order.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/base/device.h"
#include "kernels/base/dtype.h"
#include "kernels/lora/lora_rows.h"

namespace lorikeet::kernels {

inline constexpr int32_t kMaxFusedLora = 3;  // q, k and v

// One adapter's pair for one projection, in the layout of kernels/lora/lora_layout.h. Rank 0: it has none.
struct DeviceLora {
  const void* a = nullptr;
  const void* b = nullptr;
  const float* dora_factor = nullptr;  // [outputs] or null
  int32_t rank = 0;
  float scale = 0;
};

// The pairs of all slots: entry e of slot s is entries[s * slot_stride + e].
struct DeviceLoraTable {
  const DeviceLora* entries = nullptr;
  int32_t slot_stride = 0;
};

// Projections that take the same x and whose outputs lie behind each other in y. Entries are neighbours.
struct LoraLinear {
  int32_t first_entry = 0;
  int32_t projections = 0;  // 1 to kMaxFusedLora
  int32_t inputs = 0;       // a multiple of 8
  std::array<int32_t, kMaxFusedLora> outputs{};
};

// All pointers are to device memory. x is 16-byte aligned.
struct LoraArgs {
  DeviceLoraTable table;
  LoraRows rows;
  LoraLinear linear;
  Dtype dtype = Dtype::f16;  // of x and the adapters: F16 or BF16

  const void* x = nullptr;  // [rows, inputs]
  int64_t x_stride = 0;     // elements between rows, a multiple of 8

  void* y = nullptr;           // [rows, all outputs]; W x, to be completed. Where DoRA may occur, without the bias
  int64_t y_stride = 0;        // elements between rows
  Dtype y_dtype = Dtype::f16;  // `dtype` or F32
  // False: y receives scale * B (A x) alone, f not applied, for a base product that adds it later. Rows without an
  // adapter are left as they are; projections that an adapter does not have become 0.
  bool add = true;

  // Null: x is there when the kernel before `shrink` has ended. Otherwise `shrink` reads x when this counter has come
  // to x_blocks (kernels that write x count there, see their `done`), and may so run beside the base product that is
  // queued before it.
  const uint32_t* x_done = nullptr;
  int32_t x_blocks = 0;
  uint32_t* done = nullptr;  // or null: where every block of `expand` adds 1 when it has written all that it writes

  // Two projections, gate and up: y stays as it is and silu(gate) * up goes to silu_out, for all rows.
  void* silu_out = nullptr;  // [rows, outputs[0]] of `dtype`, or null
  int64_t silu_stride = 0;
};

// Owns the scratch memory between the two kernels. Threads: one at a time, on one stream. Nothing is allocated by
// shrink and expand: both may be captured.
class LoraProducts {
 public:
  // For steps of up to max_rows rows, projections of up to max_inputs inputs, adapters of ranks up to max_rank.
  static Result<LoraProducts> make(int32_t max_rows, int32_t max_inputs, int32_t max_rank);

  // The same arguments for both. Between them, shrink of other arguments must not run. With x_done, what writes x must
  // have been queued behind the expand before it.
  void shrink(const LoraArgs& args, const Stream& stream);
  // Returns the number of blocks that will add to `done`.
  int32_t expand(const LoraArgs& args, const Stream& stream);

 private:
  DeviceBuffer scratch_;
  int32_t max_rows_ = 0;
  int32_t max_inputs_ = 0;
  int32_t max_rank_ = 0;
  int32_t multiprocessors_ = 0;
  bool overlap_ = false;
};

}  // namespace lorikeet::kernels
