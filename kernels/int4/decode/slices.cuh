// A x in the int4 product (kernels/int4/decode/lora.cuh). Included by it.
#pragma once

#include "kernels/cuda/poll_bound.cuh"
#include "kernels/int4/base/fragment.cuh"
#include "kernels/int4/decode/chunk.cuh"
#include "kernels/int4/decode/lora_shared.cuh"

namespace lorikeet::kernels::int4 {

// Sums of slices go from block to block through memory in which every number is kLoraNoSum until its sum is there: no
// sum has these bits.
__device__ __forceinline__ void store_slice(float* to, float low, float high) {
  const auto bits = [](float x) {
    const uint32_t as_stored = __float_as_uint(x);
    return as_stored == kLoraNoSum ? 0x7fffffffU : as_stored;
  };
  asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1,%2};" ::"l"(to), "r"(bits(low)), "r"(bits(high)) : "memory");
}
__device__ __forceinline__ uint32_t load_slice(const float* from) {
  uint32_t bits;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(bits) : "l"(from) : "memory");
  return bits;
}
// Four at once.
__device__ __forceinline__ uint4 load_slices(const float* from) {
  uint4 bits;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(bits.x), "=r"(bits.y), "=r"(bits.z), "=r"(bits.w)
               : "l"(from)
               : "memory");
  return bits;
}
__device__ __forceinline__ bool is_there(const uint4& bits) {
  return bits.x != kLoraNoSum && bits.y != kLoraNoSum && bits.z != kLoraNoSum && bits.w != kLoraNoSum;
}

// The slices that a block may make: of the inputs that it keeps, beginning with unit first_unit. All blocks with the
// same slices deal them among themselves.
struct LoraShare {
  int first_unit;
  int begin, end;  // slices
  int index, count;
};

// A x of one slice, of rows of x in the order of the tensor cores; a lane without a row brings zeros. sums[0] and
// sums[1] are of row g and ranks 2 t and 2 t + 1. a, x: shared addresses of this lane's parts.
template <class T>
__device__ __forceinline__ void sum_slice(uint32_t a, uint32_t x, int steps, bool has_row, float (&sums)[4]) {
#pragma unroll 4
  for (int i = 0; i < steps; i++, a += lora::kBlockBytes, x += 64) {
    const uint4 weights = load_shared_16(a);
    uint32_t pairs[4];
#pragma unroll
    for (int q = 0; q < 4; q++) {
      asm volatile("ld.shared.u32 %0, [%1];" : "=r"(pairs[q]) : "r"(x + q * 16));
      if (!has_row) pairs[q] = 0;
    }
    device::mma_m16n8k16<T>(sums, pairs[0], 0, pairs[1], 0, weights.x, weights.y);
    device::mma_m16n8k16<T>(sums, pairs[2], 0, pairs[3], 0, weights.z, weights.w);
  }
}

// The slices of A x that fall to a warp, one after the other.
template <class T>
class SliceWork {
 public:
  // Asks for A of the first, which is read-only: this may run before the kernel in front has ended.
  __device__ __forceinline__ SliceWork(const DecodeLoraParams& p, const LoraShare& share, uint32_t base, int index)
      : p_(p),
        slices_(share.end - share.begin),
        begin_(share.begin),
        first_unit_(share.first_unit),
        step_(share.count * kLoraWarps),
        item_(share.index + share.count * index),
        barrier_(base + p.barriers_offset + index * 8),
        a_(base + p.slices_offset + index * kSliceBytes) {
    if (threadIdx.x % device::kWarpSize == 0) {
      device::barrier_init(barrier_, kStageArrivals);
#if __CUDA_ARCH__ >= 900
      device::fence_barrier_init();
#endif
    }
    __syncwarp();
    const int per_unit = p.projections * slices_;
    const int unit = per_unit > 0 ? item_ / per_unit : p.most_units;
    if (unit >= p.most_units) return;
    unit_ = p.units[unit];  // beside the number of units
    items_ = p.counts->units * per_unit;
    enter();
  }

  // x [m] is in shared memory at x_shared in the order of the tensor cores.
  __device__ __forceinline__ void make_all(uint32_t x_shared, int x_row_bytes, int m) {
    const int lane = threadIdx.x % device::kWarpSize;
    const int t = lane % 4;
    for (uint32_t phase = 0; item_ < items_; phase ^= 1) {
      const bool valid = token_ >= 0;
      // Inputs 8 t .. 8 t + 7 of a block are words t of its four 16-byte pieces.
      const uint32_t x = x_shared + max(token_, 0) * x_row_bytes +
                         ((begin_ + slice_) * kSliceUnits - first_unit_) * (2 * kUnitInputs) + t * 4;
      float sums[4] = {};
      device::barrier_wait(barrier_, phase);
      sum_slice<T>(a_ + lane * 16, x, steps_, valid, sums);
      if (valid) {
        const int row = ((begin_ + slice_) * m + token_) * p_.projections + projection_;
        store_slice(p_.slices + row * p_.rank_stride + unit_.first_rank + 2 * t, sums[0], sums[1]);
      }
      __syncwarp();  // all lanes have read the slice
      advance();
      enter();
    }
  }

 private:
  __device__ __forceinline__ void advance() {
    item_ += step_;
    if (item_ < items_) unit_ = p_.units[item_ / (p_.projections * slices_)];
  }
  // Asks for A of the current item; passes those of projections that an adapter lacks.
  __device__ __forceinline__ void enter() {
    const int lane = threadIdx.x % device::kWarpSize;
    for (; item_ < items_; advance()) {
      const int in_unit = item_ % (p_.projections * slices_);
      projection_ = in_unit / slices_;
      slice_ = in_unit - projection_ * slices_;
      const DeviceLora* entry = p_.entries + static_cast<int64_t>(unit_.slot) * p_.slot_stride + projection_;
      const int rank = entry->rank;
      const auto* a = static_cast<const uint8_t*>(entry->a);
      token_ = lane / 4 < unit_.count ? p_.order[unit_.first + lane / 4] : -1;
      if (unit_.first_rank >= rank) continue;
      const int blocks = lora::input_blocks(p_.inputs);
      const int first = (begin_ + slice_) * lora::kSliceBlocks;
      steps_ = min(lora::kSliceBlocks, blocks - first);
      a += (static_cast<int64_t>(unit_.first_rank / lora::kRankTile) * blocks + first) * lora::kBlockBytes;
      request_chunk(a_, a, steps_ * lora::kBlockBytes, barrier_, device::evict_first_policy(), lane);
      return;
    }
  }

  const DecodeLoraParams& p_;
  const int slices_, begin_, first_unit_, step_;
  int item_, items_ = 0;
  const uint32_t barrier_, a_;
  LoraTile unit_{};
  int projection_ = 0, slice_ = 0, steps_ = 0;
  int token_ = -1;  // of this lane's row; -1: none
};

// Forgets the sums of products that have ended. By the first kThreads threads of every block.
template <int kThreads>
__device__ __forceinline__ void clear_slices(const DecodeLoraParams& p) {
  const int thread = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  const uint4 none = make_uint4(kLoraNoSum, kLoraNoSum, kLoraNoSum, kLoraNoSum);
#pragma unroll
  for (const auto& [from, vectors] : p.cleared) {
    for (int i = thread; i < vectors; i += static_cast<int>(gridDim.x) * kThreads) static_cast<uint4*>(from)[i] = none;
  }
}

// v of a block's projections: the slices of an element are added in parts, and the parts in their order.
class GatherV {
 public:
  // Needs the tokens' description: this may run before the kernel in front has ended.
  __device__ __forceinline__ GatherV(const DecodeLoraParams& p, LoraShared& shared, int m, const OwnProjections& own)
      : p_(p),
        shared_(shared),
        m_(m),
        first_projection_(own.first),
        elements_((own.last - own.first + 1) * m * shared.ranks) {
    plan(0);
  }

  // By all warps of LoRA; a barrier must follow.
  __device__ __forceinline__ void run() {
    const int stride = m_ * p_.projections * p_.rank_stride;
    for (int begin = 0;;) {  // alike for all lanes, which exchange parts
      uint32_t values[kTogether][kPartSlices] = {};
      bool exists[kTogether][kPartSlices];
#pragma unroll
      for (int j = 0; j < kTogether; j++) {
#pragma unroll
        for (int i = 0; i < kPartSlices; i++) exists[j][i] = to_[j] >= 0 && first_slice() + i < p_.slice_count;
      }
      // All that have not come are asked for again at once: one after the other would wait as often for the memory.
      bool complete;
      device::PollBound bound;
      do {
        bound.count();
#pragma unroll
        for (int j = 0; j < kTogether; j++) {
#pragma unroll
          for (int i = 0; i < kPartSlices; i++) {
            if (exists[j][i]) values[j][i] = load_slice(p_.slices + from_[j] + i * stride);
          }
        }
        complete = true;
#pragma unroll
        for (int j = 0; j < kTogether; j++) {
#pragma unroll
          for (int i = 0; i < kPartSlices; i++) complete = complete && values[j][i] != kLoraNoSum;
        }
      } while (!complete);
#pragma unroll
      for (int j = 0; j < kTogether; j++) {
        float sum = 0;
#pragma unroll
        for (int i = 0; i < kPartSlices; i++) sum += __uint_as_float(values[j][i]);
        float total = 0;
        for (int i = 0; i < lanes(); i++) total += __shfl_sync(device::kFullWarp, sum, i, lanes());
        if (to_[j] >= 0 && first_slice() == 0) {
          const uint32_t main = lora::to_tf32(total);
          auto* pair = reinterpret_cast<uint32_t*>(shared_.v(p_)) + to_[j];
          pair[0] = main;
          pair[2] = lora::to_tf32(total - __uint_as_float(main));
        }
      }
      begin += kTogether * step();
      if (begin >= elements_) return;
      plan(begin);
    }
  }

 private:
  static constexpr int kPartSlices = lora::kShrinkWarps;
  static constexpr int kTogether = 2;  // elements of a lane that are on their way

  // Lanes that share an element, a part each.
  __device__ __forceinline__ int lanes_log2() const {
    return p_.slice_count <= 4 * kPartSlices ? 2 : 3;
  }
  __device__ __forceinline__ int lanes() const {
    return 1 << lanes_log2();
  }
  __device__ __forceinline__ int step() const {
    return kLoraThreads >> lanes_log2();
  }
  __device__ __forceinline__ int first_slice() const {
    return (static_cast<int>(threadIdx.x) & (lanes() - 1)) * kPartSlices;
  }
  __device__ __forceinline__ void plan(int begin) {
    const int ranks = shared_.ranks;
    const int stride = m_ * p_.projections * p_.rank_stride;
#pragma unroll
    for (int j = 0; j < kTogether; j++) {
      const int e = begin + j * step() + (static_cast<int>(threadIdx.x) >> lanes_log2());
      to_[j] = -1;
      from_[j] = 0;
      if (e >= elements_) continue;
      const int row = e / ranks;
      const int rank = e - row * ranks;
      const int of_projection = row / m_;
      const int token = row - of_projection * m_;
      const int projection = first_projection_ + of_projection;
      if (rank >= lora::rank_tiles(shared_.tokens[projection][token].rank) * lora::kRankTile) continue;
      to_[j] = ((projection * m_ + token) * p_.v_stride + rank / 2) * 4 + rank % 2;
      from_[j] = (token * p_.projections + projection) * p_.rank_stride + rank + first_slice() * stride;
    }
  }

  const DecodeLoraParams& p_;
  LoraShared& shared_;
  const int m_, first_projection_, elements_;
  int to_[kTogether];  // words of v; -1: no such element
  int from_[kTogether];
};

}  // namespace lorikeet::kernels::int4
