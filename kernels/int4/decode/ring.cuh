// What a block of the int4 product that keeps x does of the product, and the rings through which its warps bring the
// weights for it. Included by int4_decode.cuh.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device_math.cuh"
#include "kernels/int4/base/fragment.cuh"
#include "kernels/int4/base/layout.h"
#include "kernels/int4/decode/chunk.cuh"
#include "kernels/int4/decode/lora.cuh"
#include "kernels/int4/decode/x.cuh"

namespace lorikeet::kernels::int4 {

// The tiles of a block's group, and the parts of k that it takes of each. An item is one of those parts of one tile; a
// warp takes every kDecodeWarps-th.
struct BlockWork {
  int rank;   // in the cluster
  int group;  // the cluster
  int first_tile, tiles;
  int parts_log2, first_part;  // parts of k
  int items;
  int first_unit, own_units;  // of k

  __device__ __forceinline__ explicit BlockWork(const DecodeParams& p)
      : rank(static_cast<int>(blockIdx.x) & ((1 << p.cluster_log2) - 1)),
        group(static_cast<int>(blockIdx.x) >> p.cluster_log2),
        first_tile(group * p.tiles + min(group, p.groups_with_more)),
        tiles(p.tiles + (group < p.groups_with_more ? 1 : 0)),
        parts_log2(kPartsOfKLog2 - p.cluster_log2),
        first_part(rank << parts_log2),
        items(tiles << parts_log2),
        first_unit(part_begin(p.units, first_part)),
        own_units(part_begin(p.units, first_part + (1 << parts_log2)) - first_unit) {}

  __device__ __forceinline__ int end_unit() const { return first_unit + own_units; }
  // Of item i, which belongs to the block's tile i >> parts_log2.
  __device__ __forceinline__ int part_of(int item) const { return first_part + (item & ((1 << parts_log2) - 1)); }
  // Tiles whose outputs the block finishes: every `cluster`-th of the group's, from its rank on.
  __device__ __forceinline__ int owned(int cluster, int cluster_log2) const {
    return (tiles - rank + cluster - 1) >> cluster_log2;
  }
};

// A warp's ring: stages of shared memory, each with a barrier, that are filled in the order of the warp's items.
template <class Format>
class WeightRing {
 public:
  const uint8_t* const weight;  // of the group's first tile
  const uint32_t stage_bytes;
  const uint32_t begin, end;  // of the ring, from the beginning of shared memory on
  const uint32_t full;        // the barrier of its first stage; the others follow, 8 bytes each

  // `base`: address of the block's shared memory; `barriers`: of its first ring.
  __device__ __forceinline__ WeightRing(const DecodeParams& p, const BlockWork& work, uint32_t base, uint32_t barriers,
                                        int warp, int lane)
      : weight(p.weight + static_cast<int64_t>(work.first_tile) * p.units * Format::kBytes),
        stage_bytes(chunk_stage_bytes(p.chunk * Format::kBytes)),
        begin(p.ring_offset + warp * p.stages * stage_bytes),
        end(begin + p.stages * stage_bytes),
        full(barriers + warp * p.stages * 8),
        p_(p),
        work_(work),
        base_(base),
        lane_(lane),
        policy_(device::evict_first_policy()),
        item_(warp) {}

  // By one lane.
  __device__ __forceinline__ void init_barriers() const {
    for (int i = 0; i < p_.stages; i++) device::barrier_init(full + i * 8, kStageArrivals);
  }

  // By all lanes: fills stages that have not been filled yet.
  __device__ __forceinline__ void request_stages(int first, int last) {
    for (int i = first; i < last; i++) request(begin + i * stage_bytes, full + i * 8);
  }

  // Fills a stage with the next chunk; behind the last one it is left as it is.
  __device__ __forceinline__ void request(uint32_t stage, uint32_t barrier) {
    while (left_ == 0) {
      item_ += kDecodeWarps;
      if (item_ >= work_.items) return;
      enter();
    }
    const int n = min(p_.chunk, left_);
    request_lines(base_ + stage, from_, n * Format::kBytes, barrier, policy_, lane_);
    from_ += n * Format::kBytes;
    left_ -= n;
  }

  // The first item, if there is one.
  __device__ __forceinline__ void enter_first() {
    if (item_ < work_.items) enter();
  }

 private:
  __device__ __forceinline__ void enter() {
    const int unit = part_begin(p_.units, work_.part_of(item_));
    left_ = part_begin(p_.units, work_.part_of(item_) + 1) - unit;
    from_ = weight + static_cast<int64_t>((item_ >> work_.parts_log2) * p_.units + unit) * Format::kBytes;
  }

  const DecodeParams& p_;
  const BlockWork& work_;
  const uint32_t base_;
  const int lane_;
  const uint64_t policy_;
  // What is requested next: the rest of an item.
  int item_;
  int left_ = 0;  // units
  const uint8_t* from_ = nullptr;
};

}  // namespace lorikeet::kernels::int4
