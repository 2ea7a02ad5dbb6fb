// The int4 product for a few tokens: how its launch is shaped. Used by kernels/int4_gemm_cuda.h and by benchmarks that
// compare shapes; the result does not depend on the shape.
#pragma once

#include "kernels/int4_gemm_cuda.h"

namespace lorikeet::kernels {

inline constexpr int32_t kInt4DecodePassRows = 16;  // tokens of one launch
inline constexpr int32_t kInt4DecodeWarps = 8;

struct Int4DecodeShape {
  int32_t cluster = 1;  // blocks that share a range of tiles and divide its inputs among them
  int32_t clusters = 1;
  int32_t ring_depth = 2;   // slabs in flight per warp
  int32_t round_tiles = 0;  // tiles of a cluster between two exchanges, a multiple of `cluster`
  bool overlap = true;      // starts while the kernel before it ends
};

// The parts of a shape that the caller leaves open are 0.
struct Int4DecodeWish {
  int32_t cluster = 0;
  int32_t ring_depth = 0;
  uint64_t shared_bytes = 0;  // of a block, at most
  bool overlap = true;
};

// What the device offers to the kernel: read once.
struct Int4DecodeDevice {
  int32_t multiprocessors = 0;
  uint64_t shared_bytes_per_block = 0;
  bool clusters = false;  // the kernel that runs here was compiled for a device with clusters
  static Int4DecodeDevice current();
};

// Whether a block of that shape finds room; what shape_int4_decode chooses without wishes always does.
bool int4_decode_fits(const PackedInt4Weight& weight, int32_t m, const Int4DecodeWish& wish,
                      const Int4DecodeDevice& device);

Int4DecodeShape shape_int4_decode(const PackedInt4Weight& weight, int32_t m, Dtype dtype, const Int4DecodeWish& wish,
                                  const Int4DecodeDevice& device);

// Bytes of scratch that a product of up to kInt4DecodePassRows tokens needs; 0 where clusters exchange sums themselves.
uint64_t int4_decode_scratch_bytes(int32_t max_outputs, int32_t max_inputs, const Int4DecodeDevice& device);

// m up to kInt4DecodePassRows.
void int4_decode(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Int4DecodeShape& shape,
                 const Int4DecodeDevice& device, float* scratch, const Stream& stream);

}  // namespace lorikeet::kernels
