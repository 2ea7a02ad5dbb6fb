// LoRA of a single token inside of the int4 product whose blocks keep x (kernels/int4/decode/int4_decode.cuh), by the
// warps that stream: no thread is added, so that blocks of the next kernel find room beside. Included by it.
//
// The work goes to the warps that have the least to stream, often nothing: helper h is the h-th from the last.
// A x. Before x, helpers ask for a slice of A each; with x they make its sums and leave them in global memory. B (A x).
// When helpers have done their part of the stream they add the slices of all blocks, for the whole block. The warp that
// finishes a tile then makes its B v. Slices, sums and steps are those of kernels/int4/decode/lora.cuh: the same bits.
// The blocks of the product run together: nobody waits for a block that cannot begin.
//
// What counts is the time from x to the sums, in which every access to memory waits behind the weights. So all that
// does not depend on x is done before: the adapters' weights are read-only.
#pragma once

#include "kernels/int4/decode/slices.cuh"
#include "kernels/int4/decode/sums.cuh"

namespace lorikeet::kernels::int4 {

// In shared memory, with v [projections][v_stride] behind it.
struct alignas(16) TokenLoraShared {
  DeviceLora pairs[kMaxFusedLora];  // rank 0: nothing
  int32_t rank;                     // the highest, rounded up to whole blocks

  __device__ __forceinline__ RankPair* v() { return reinterpret_cast<RankPair*>(this + 1); }
};
constexpr uint64_t token_lora_shared_bytes(const Int4LoraSize& size) {
  return sizeof(TokenLoraShared) +
         static_cast<uint64_t>(size.projections * lora_v_stride(size.max_rank)) * sizeof(RankPair);
}

template <class T>
class TokenLoraWork {
 public:
  __device__ __forceinline__ TokenLoraWork(const DecodeLoraParams& p, const OutputParams& o,
                                           unsigned char* block_memory, const LoraShare& share, const OwnTiles& tiles,
                                           int warp)
      : p_(p),
        o_(o),
        memory_(block_memory),
        shared_(*reinterpret_cast<TokenLoraShared*>(block_memory + p.offset)),
        share_(share),
        tiles_(tiles),
        helper_(kDecodeWarps - 1 - warp) {}

  // Describes the token's adapter and asks for A: adapters are read-only. A barrier of the block must follow.
  __device__ __forceinline__ void begin() const {
    if (helper_ >= p_.helpers) return;
    const int lane = threadIdx.x % device::kWarpSize;
    if (lane == 0) {
      device::barrier_init(slice_barrier(), kStageArrivals);
      if (helper_ == 0) device::barrier_init(v_barrier(), p_.helpers * device::kWarpSize);
#if __CUDA_ARCH__ >= 900
      device::fence_barrier_init();
#endif
    }
    __syncwarp();
    const int tiles = p_.counts->tiles;
    const int slot = p_.tiles[0].slot;
    DeviceLora entry;
    if (lane < p_.projections && tiles > 0 && slot >= 0) {
      entry = p_.entries[static_cast<int64_t>(slot) * p_.slot_stride + lane];
    }
    const int blocks = __reduce_max_sync(device::kFullWarp, lora::rank_tiles(entry.rank));
    if (helper_ == 0) {
      if (lane < kMaxFusedLora) shared_.pairs[lane] = entry;
      if (lane == 0) shared_.rank = blocks * lora::kRankTile;
    }
    if (first_item() >= blocks * items_of_block()) return;
    const Slice slice(*this, first_item());
    const auto a = reinterpret_cast<const uint8_t*>(
        __shfl_sync(device::kFullWarp, reinterpret_cast<unsigned long long>(entry.a), slice.projection));
    if (slice.first_rank < __shfl_sync(device::kFullWarp, entry.rank, slice.projection)) ask(slice, a);
  }

  // x is in shared memory.
  __device__ __forceinline__ void make_slices(uint32_t x_shared) const {
    clear_slices<kDecodeThreads>(p_);
    if (helper_ >= p_.helpers) return;
    const int lane = threadIdx.x % device::kWarpSize;
    const int t = lane % 4;
    const int items = shared_.rank / lora::kRankTile * items_of_block();
    uint32_t phase = 0;
    for (int item = first_item(); item < items; item += share_.count * p_.helpers) {
      const Slice slice(*this, item);
      const DeviceLora& pair = shared_.pairs[slice.projection];
      if (slice.first_rank >= pair.rank) continue;
      if (item != first_item()) ask(slice, static_cast<const uint8_t*>(pair.a));
      float sums[4] = {};
      device::barrier_wait(slice_barrier(), phase);
      sum_slice<T>(slice_address() + lane * 16,
                   x_shared + (slice.index * kSliceUnits - share_.first_unit) * (2 * kUnitInputs) + t * 4, slice.steps,
                   lane < 4, sums);
      if (lane < 4) {
        store_slice(
            p_.slices + (slice.index * p_.projections + slice.projection) * p_.rank_stride + slice.first_rank + 2 * t,
            sums[0], sums[1]);
      }
      __syncwarp();  // all lanes have read the slice
      phase ^= 1;
    }
    if (!gathers()) device::barrier_arrive(v_barrier());
  }

  // Asks for B of the tiles that this warp finishes, where there is room for it.
  __device__ __forceinline__ void stage_b() const {
    constexpr int kVectors = kPieceBytes / 16;
    if (!staged()) return;
    const int blocks = shared_.rank / lora::kRankTile;
    for (int tile = helper_; tile < tiles_.count; tile += kDecodeWarps) {
      for (int i = threadIdx.x % device::kWarpSize; i < 2 * blocks * kVectors; i += device::kWarpSize) {
        const int half = i >= blocks * kVectors ? 1 : 0;
        const int block = i / kVectors - half * blocks;
        const LoraOutput of = lora_output(p_, o_, tiles_[tile], 8 * half);
        if (of.projection < 0 || block * lora::kRankTile >= shared_.pairs[of.projection].rank) continue;
        device::copy_async_16(device::shared_address(staged_pieces(tile, half) + i % (blocks * kVectors) * 16),
                              piece(of, block) + i % kVectors * 16, true);
      }
    }
    device::commit_async_copies();
  }

  // v of the block's projections. By every warp when it has streamed.
  __device__ __forceinline__ void gather_v() const {
    if (helper_ >= p_.helpers || !gathers()) return;
    const int lane = threadIdx.x % device::kWarpSize;
    const int lanes = 1 << lanes_log2();
    const int first_slice = (lane & (lanes - 1)) * kPartSlices;
    const int stride = p_.projections * p_.rank_stride;
    const int quads = shared_.rank / 4;
    const int first_projection = OwnProjections(p_, o_, tiles_).first;
    for (int begin = helper_ * together(); begin < elements(); begin += p_.helpers * together()) {
      const int element = begin + (lane >> lanes_log2());
      const int of_projection = element / quads;
      const int quad = element - of_projection * quads;
      const int projection = first_projection + of_projection;
      const bool exists = element < elements() && quad * 4 < lora::padded_rank(shared_.pairs[projection].rank);
      const float* from = p_.slices + first_slice * stride + projection * p_.rank_stride + quad * 4;
      const int count = exists ? min(kPartSlices, p_.slice_count - first_slice) : 0;
      uint4 values[kPartSlices] = {};
      bool complete;
      device::PollBound bound;
      do {  // all at once: one after the other would wait as often for the memory
        bound.count();
#pragma unroll
        for (int i = 0; i < kPartSlices; i++) {
          if (i < count) values[i] = load_slices(from + i * stride);
        }
        complete = true;
#pragma unroll
        for (int i = 0; i < kPartSlices; i++) complete = complete && is_there(values[i]);
      } while (!complete);
      float sums[4] = {};
#pragma unroll
      for (int i = 0; i < kPartSlices; i++) {
        sums[0] += __uint_as_float(values[i].x);
        sums[1] += __uint_as_float(values[i].y);
        sums[2] += __uint_as_float(values[i].z);
        sums[3] += __uint_as_float(values[i].w);
      }
#pragma unroll
      for (int e = 0; e < 4; e++) {
        float total = 0;
        for (int i = 0; i < lanes; i++) total += __shfl_sync(device::kFullWarp, sums[e], i, lanes);
        if (!exists || first_slice > 0) continue;
        RankPair& pair = shared_.v()[projection * p_.v_stride + quad * 2 + e / 2];
        pair.main[e % 2] = lora::to_tf32(total);
        pair.rest[e % 2] = lora::to_tf32(total - __uint_as_float(lora::to_tf32(total)));
      }
    }
    device::barrier_arrive(v_barrier());  // by every lane that has written some of v
  }

  // B v of rows g and g + 8 of one of the tiles, in the lanes whose t is 0. By the warp that finishes the tile.
  __device__ __forceinline__ float2 sum_b(int tile) const {
    const LoraOutput of[2] = {lora_output(p_, o_, tiles_[tile], 0), lora_output(p_, o_, tiles_[tile], 8)};
    device::wait_async_copies<0>();
    __syncwarp();
    device::barrier_wait(v_barrier(), 0);
    float sums[4] = {};
    if (of[0].projection == of[1].projection) {
      add<true, true>(tile, of, sums);
    } else {
      add<true, false>(tile, of, sums);
      if (of[1].projection >= 0) add<false, true>(tile, of, sums);
    }
    return make_float2(sums[0], sums[2]);
  }

  __device__ __forceinline__ float complete(float base, int tile, int row, float sum) const {
    const LoraOutput of = lora_output(p_, o_, tiles_[tile], row);
    if (of.projection < 0) return base;
    const DeviceLora& pair = shared_.pairs[of.projection];
    return complete_by_adapter(base, {pair.dora_factor, pair.scale, pair.rank}, of.output, sum);
  }

 private:
  static constexpr int kPartSlices = lora::kShrinkWarps;

  // What gather_v is cut into: four ranks of a projection, by lanes that take a part of the slices each.
  __device__ __forceinline__ int elements() const {
    if (tiles_.count == 0) return 0;
    const OwnProjections own(p_, o_, tiles_);
    return (own.last - own.first + 1) * (shared_.rank / 4);
  }
  __device__ __forceinline__ int lanes_log2() const {
    return p_.slice_count <= 4 * kPartSlices ? 2 : 3;
  }
  __device__ __forceinline__ int together() const {
    return device::kWarpSize >> lanes_log2();
  }
  __device__ __forceinline__ bool gathers() const {
    return helper_ * together() < elements();
  }

  // Eight ranks of A and inputs of a slice.
  struct Slice {
    int first_rank, projection, index, steps;
    __device__ __forceinline__ Slice(const TokenLoraWork& work, int item) {
      const int slices = work.share_.end - work.share_.begin;
      const int row = item / slices;
      index = work.share_.begin + item - row * slices;
      const int block = row / work.p_.projections;
      projection = row - block * work.p_.projections;
      first_rank = block * lora::kRankTile;
      steps = min(lora::kSliceBlocks, lora::input_blocks(work.p_.inputs) - index * lora::kSliceBlocks);
    }
  };

  __device__ __forceinline__ int first_item() const {
    return share_.index + share_.count * helper_;
  }
  __device__ __forceinline__ int items_of_block() const {
    return p_.projections * (share_.end - share_.begin);
  }
  __device__ __forceinline__ bool staged() const {
    return shared_.rank <= p_.staged_rank;
  }
  __device__ __forceinline__ uint32_t slice_barrier() const {
    return device::shared_address(memory_) + p_.barriers_offset + helper_ * 8;
  }
  __device__ __forceinline__ uint32_t v_barrier() const {
    return device::shared_address(memory_) + p_.barriers_offset + p_.helpers * 8;
  }
  __device__ __forceinline__ uint32_t slice_address() const {
    return device::shared_address(memory_) + p_.slices_offset + helper_ * kSliceBytes;
  }
  __device__ __forceinline__ void ask(const Slice& slice, const uint8_t* a) const {
    const int64_t block = static_cast<int64_t>(slice.first_rank / lora::kRankTile) * lora::input_blocks(p_.inputs) +
                          slice.index * lora::kSliceBlocks;
    request_chunk(slice_address(), a + block * lora::kBlockBytes, slice.steps * lora::kBlockBytes, slice_barrier(),
                  device::evict_first_policy(), threadIdx.x % device::kWarpSize);
  }

  // [tiles][halves][blocks of ranks]
  __device__ __forceinline__ unsigned char* staged_pieces(int tile, int half) const {
    return memory_ + p_.pieces_offset + (tile * 2 + half) * (shared_.rank / lora::kRankTile) * kPieceBytes;
  }
  __device__ __forceinline__ const unsigned char* piece(const LoraOutput& of, int block) const {
    const DeviceLora& pair = shared_.pairs[of.projection];
    const int blocks = lora::rank_tiles(pair.rank);
    return static_cast<const unsigned char*>(pair.b) +
           (static_cast<int64_t>(of.output / lora::kOutputTile) * blocks + block) * lora::kBlockBytes +
           of.output % lora::kOutputTile * (kPieceBytes / 8);
  }

  template <bool kLow, bool kHigh>
  __device__ __forceinline__ void add(int tile, const LoraOutput (&of)[2], float (&sums)[4]) const {
    const int lane = threadIdx.x % device::kWarpSize;
    const int g = lane / 4;
    const int projection = of[kLow ? 0 : 1].projection;
    const int blocks = lora::rank_tiles(shared_.pairs[projection].rank);
    const int in_piece = (g % 2 * 4 + lane % 4) * 16 + g / 2 * 4;
    const bool is_staged = staged();
    const int step = is_staged ? kPieceBytes : lora::kBlockBytes;
    const auto first = [&](int half) {
      return (is_staged ? staged_pieces(tile, half) : piece(of[half], 0)) + in_piece;
    };
    const unsigned char* low_b = kLow ? first(0) : nullptr;
    const unsigned char* high_b = kHigh ? first(1) : nullptr;
    const RankPair* v = shared_.v() + projection * p_.v_stride + lane % 4;
#pragma unroll 2
    for (int block = 0; block < blocks; block++) {
      const auto words = [](const unsigned char* b) {
        return device::unpack<T>(*reinterpret_cast<const uint32_t*>(b));
      };
      const float2 low = kLow ? words(low_b + block * step) : make_float2(0, 0);
      const float2 high = kHigh ? words(high_b + block * step) : make_float2(0, 0);
      RankPair x{};
      if (g == 0) x = v[block * (lora::kRankTile / 2)];
      const uint32_t a[4] = {__float_as_uint(low.x), __float_as_uint(high.x), __float_as_uint(low.y),
                             __float_as_uint(high.y)};
      lora::mma_tf32(sums, a, x.rest[0], x.rest[1]);
      lora::mma_tf32(sums, a, x.main[0], x.main[1]);
    }
  }

  const DecodeLoraParams& p_;
  const OutputParams& o_;
  unsigned char* const memory_;
  TokenLoraShared& shared_;
  const LoraShare share_;
  const OwnTiles tiles_;
  const int helper_;
};

}  // namespace lorikeet::kernels::int4
