// LoRA of a single token inside of the int4 product whose blocks keep x (kernels/int4/decode/int4_decode.cuh), by the
// warps that stream: no thread is added, so that blocks of the next kernel find room beside. Included by it.
//
// The work goes to the warps that have the least to stream, often nothing: helper h is the h-th from the last.
// A x. Before x, helpers ask for a slice of A each; with x they make its sums and leave them in global memory. B (A x).
// When they have done their part of the stream they add the slices of all blocks, for the whole block. The warps with the
// least to stream then make B v of the block's tiles, and leave it beside the parts of W x for whoever finishes the outputs.
// Slices, sums and steps are those of kernels/int4/decode/lora.cuh: the same bits. The blocks of the product run together:
// nobody waits for a block that cannot begin.
//
// What counts is the time from x to the sums. A warp that has nobody beside it takes some six cycles for an instruction,
// and every access to memory waits behind the weights. So all that does not depend on x is done before: adapters are
// read-only, and where a warp finds its slice and the others' sums is known.
#pragma once

#include "kernels/int4/decode/slices.cuh"
#include "kernels/int4/decode/token_sums.cuh"

namespace lorikeet::kernels::int4 {

// Keeps the compiler from making a number later than here.
template <class N>
__device__ __forceinline__ void made_here(N& number) {
  asm volatile("" : "+r"(number));
}

__device__ __forceinline__ uint32_t clock_now() {
  uint32_t now;
  asm volatile("mov.u32 %0, %%clock;" : "=r"(now)::"memory");
  return now;
}

// Cycles from when x is in shared memory to the first look for other blocks' slices, about as long as they need for theirs:
// who looks a moment too early waits for the memory once more. One token with an adapter of rank 16: 2.99 -> 2.94 ms.
inline constexpr uint32_t kFirstLook = 1900;

template <class T>
class TokenLoraWork {
 public:
  // `items`: parts of tiles that the block streams, `tiles`: those that it finishes.
  __device__ __forceinline__ TokenLoraWork(const DecodeLoraParams& p, const OutputParams& o,
                                           unsigned char* block_memory, const LoraShare& share, const OwnTiles& tiles,
                                           int items, int warp)
      : p_(p),
        o_(o),
        memory_(block_memory),
        shared_(*reinterpret_cast<TokenLoraShared*>(block_memory + p.offset)),
        share_(share),
        tiles_(tiles),
        helper_(kDecodeWarps - 1 - warp),
        summing_(min(kDecodeWarps - items % kDecodeWarps, tiles.count)) {}

  // Lanes that store B v of the block's tiles, and arrive when they have.
  __device__ __forceinline__ int summing() const { return summing_ * TokenTilesOfB<T>::kStoringLanes; }

  // The token's adapter, in two steps, so that what they ask the memory for is there when it is needed.
  __device__ __forceinline__ void ask_tables() {
    if (!works()) return;
    rows_ = p_.counts->tiles;
    slot_ = p_.tiles[0].slot;
  }
  __device__ __forceinline__ void ask_entry() {
    const int lane = threadIdx.x % device::kWarpSize;
    if (works() && lane < p_.projections && rows_ > 0 && slot_ >= 0) {
      entry_ = p_.entries[static_cast<int64_t>(slot_) * p_.slot_stride + lane];
    }
  }

  // By one lane; a barrier of the block must follow.
  __device__ __forceinline__ void init_barriers() const {
    if (helper_ >= p_.helpers) return;
    device::barrier_init(slice_barrier(), kStageArrivals);
    if (helper_ == 0) device::barrier_init(v_barrier(), p_.helpers * device::kWarpSize);
  }

  // Describes the token's adapter and asks for A and B: adapters are read-only. A barrier of the block must follow.
  __device__ __forceinline__ void prepare(uint32_t x_shared) {
    if (!works()) return;
    const int lane = threadIdx.x % device::kWarpSize;
    const int blocks = __reduce_max_sync(device::kFullWarp, lora::rank_tiles(entry_.rank));
    if (helper_ == 0) {
      if (lane < kMaxFusedLora) shared_.pairs[lane] = entry_;
      if (lane == 0) shared_.rank = blocks * lora::kRankTile;
      if (lane == 0) shared_.tiles = tiles_.count;
      if (lane == 0) shared_.quads = quads(blocks);
    }
    if (helper_ < p_.helpers) {
      if (first_item() < blocks * items_of_block()) {
        const Slice slice(*this, first_item());
        const auto a = reinterpret_cast<const uint8_t*>(
            __shfl_sync(device::kFullWarp, reinterpret_cast<unsigned long long>(entry_.a), slice.projection));
        if (slice.first_rank < __shfl_sync(device::kFullWarp, entry_.rank, slice.projection)) {
          ask(slice, a);
          first_slice_ = SlicePlace(*this, slice, x_shared);
        }
      }
      const int begin = helper_ * together();
      const int rank = __shfl_sync(device::kFullWarp, entry_.rank, projection_of_sums(tiles_, blocks, begin));
      first_sums_ = SumsPlace(*this, tiles_, blocks, begin, rank);
      first_slice_.made();
      first_sums_.made();
    }
    if (helper_ < summing_) of_b().prepare(helper_, summing_, tiles_, entry_, blocks);
  }

  // x is in shared memory.
  __device__ __forceinline__ void make_slices(uint32_t x_shared) const {
    if (helper_ >= p_.helpers) return;
    const int lane = threadIdx.x % device::kWarpSize;
    if (lane == 0) shared_.x_came[helper_] = clock_now();
    uint32_t phase = 0;
    SlicePlace place = first_slice_;
    int item = first_item();
    while (true) {
      if (place.steps > 0) {
        float sums[4] = {};
        device::barrier_wait(slice_barrier(), phase);
        sum_slice<T>(slice_address() + lane * 16, place.x, place.steps, sums);
        if (lane < 4) store_slice(p_.slices + place.to, sums[0], sums[1]);
        phase ^= 1;
      }
      item += share_.count * p_.helpers;
      if (item >= shared_.rank / lora::kRankTile * items_of_block()) return;
      const Slice slice(*this, item);
      const DeviceLora& pair = shared_.pairs[slice.projection];
      place.steps = 0;
      if (slice.first_rank >= pair.rank) continue;
      __syncwarp();  // all lanes have read the slice
      ask(slice, static_cast<const uint8_t*>(pair.a));
      place = SlicePlace(*this, slice, x_shared);
    }
  }

  // v of the block's projections. By every warp when it has streamed.
  __device__ __forceinline__ void gather_v() const {
    if (helper_ >= p_.helpers) return;
    const int lane = threadIdx.x % device::kWarpSize;
    const int stride = p_.projections * p_.rank_stride;
    __syncwarp();
    while (clock_now() - shared_.x_came[helper_] < kFirstLook) {
    }
    SumsPlace place = first_sums_;
    int begin = helper_ * together();
    while (true) {
      uint4 values[kPartSlices] = {};
      device::PollBound bound;
      do {  // all at once: one after the other would wait as often for the memory
        bound.count();
        int from = place.from();
        made_here(from);  // so that no registers keep eight addresses
#pragma unroll
        for (int i = 0; i < kPartSlices; i++) {
          if (i < place.count()) values[i] = load_slices(p_.slices + from + i * stride);
        }
      } while (!are_there(values));
      __syncwarp();
      float sums[4] = {};
#pragma unroll
      for (int i = 0; i < kPartSlices; i++) {
        sums[0] += __uint_as_float(values[i].x);
        sums[1] += __uint_as_float(values[i].y);
        sums[2] += __uint_as_float(values[i].z);
        sums[3] += __uint_as_float(values[i].w);
      }
      float totals[4] = {};
      const auto add_lanes = [&](int first) {
#pragma unroll
        for (int i = first; i < first + kFewestLanes; i++) {
#pragma unroll
          for (int e = 0; e < 4; e++) {
            totals[e] += __shfl_sync(device::kFullWarp, sums[e], lane / kFewestLanes * kFewestLanes + i);
          }
        }
      };
      add_lanes(0);
      if (lanes_log2() > kFewestLanesLog2) add_lanes(kFewestLanes);
      if (place.stores()) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
          RankPair pair;
#pragma unroll
          for (int e = 0; e < 2; e++) {
            pair.main[e] = lora::to_tf32(totals[2 * i + e]);
            pair.rest[e] = lora::to_tf32(totals[2 * i + e] - __uint_as_float(pair.main[e]));
          }
          shared_.v()[place.to() + i] = pair;
        }
      }
      begin += p_.helpers * together();
      if (begin >= shared_.quads) break;
      const OwnTiles tiles = own_tiles();
      const int blocks = shared_.rank / lora::kRankTile;
      const int projection = projection_of_sums(tiles, blocks, begin);
      place = SumsPlace(*this, tiles, blocks, begin, projection < kMaxFusedLora ? shared_.pairs[projection].rank : 0);
    }
    device::barrier_arrive(v_barrier());  // by every lane that has written some of v
    if (helper_ == 0) clear_slices(p_, lane, device::kWarpSize);
  }

  // B v of the tiles that fall to the warp, for whoever waits for `done`, on which summing() lanes arrive.
  __device__ __forceinline__ void make_sums(uint32_t done) const {
    if (helper_ < summing_) of_b().make_sums(helper_, summing_, own_tiles(), v_barrier(), done);
  }

  // The tiles that the block finishes; when all warps are prepared.
  __device__ __forceinline__ OwnTiles own_tiles() const {
    return {tiles_.first, tiles_.stride, shared_.tiles};
  }
  // Of a tile of the block.
  __device__ __forceinline__ TokenDelta delta(int tile, int row) const {
    return shared_.deltas(p_, tile)[row];
  }

 private:
  static constexpr int kPartSlices = lora::kShrinkWarps;

  __device__ __forceinline__ TokenTilesOfB<T> of_b() const {
    return {p_, o_, memory_, shared_};
  }
  __device__ __forceinline__ bool works() const {
    return helper_ < max(p_.helpers, summing_);
  }

  // What gather_v is cut into: four ranks of a projection, by lanes that take a part of the slices each.
  __device__ __forceinline__ int quads(int blocks) const {
    if (tiles_.count == 0) return 0;
    const OwnProjections own(p_, o_, tiles_);
    return (own.last - own.first + 1) * blocks * 2;
  }
  static constexpr int kFewestLanesLog2 = 2;
  static constexpr int kFewestLanes = 1 << kFewestLanesLog2;
  __device__ __forceinline__ int lanes_log2() const {
    return kFewestLanesLog2 + (p_.slice_count <= kFewestLanes * kPartSlices ? 0 : 1);
  }
  __device__ __forceinline__ int together() const {
    return device::kWarpSize >> lanes_log2();
  }
  // The projection of this lane's element, of those from `begin` on; behind the last it is none of the block's.
  __device__ __forceinline__ int projection_of_sums(const OwnTiles& tiles, int blocks, int begin) const {
    const int lane = threadIdx.x % device::kWarpSize;
    if (tiles.count == 0 || blocks == 0) return kMaxFusedLora;
    const OwnProjections own(p_, o_, tiles);
    const int projection = own.first + (begin + (lane >> lanes_log2())) / (2 * blocks);
    return projection <= own.last ? projection : kMaxFusedLora;
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
  // Where this lane finds x of a slice, and where its sums go.
  struct SlicePlace {
    uint32_t x = 0;  // in shared memory
    int steps = 0;
    int to = 0;  // of p.slices
    SlicePlace() = default;
    __device__ __forceinline__ SlicePlace(const TokenLoraWork& work, const Slice& slice, uint32_t x_shared)
        : x(x_shared + (slice.index * kSliceUnits - work.share_.first_unit) * (2 * kUnitInputs)),
          steps(slice.steps),
          to((slice.index * work.p_.projections + slice.projection) * work.p_.rank_stride + slice.first_rank +
             static_cast<int>(threadIdx.x) % 4 * 2) {}
    __device__ __forceinline__ void made() {
      made_here(x);
      made_here(steps);
      made_here(to);
    }
  };
  // Where this lane finds its part of the slices of four ranks, how many of them, and where their sum goes, if by this
  // lane. In one register, as it is kept while the warp streams.
  class SumsPlace {
   public:
    SumsPlace() = default;
    // `rank`: of the projection of the lane's element.
    __device__ __forceinline__ SumsPlace(const TokenLoraWork& work, const OwnTiles& tiles, int blocks, int begin,
                                         int rank) {
      const int lane = threadIdx.x % device::kWarpSize;
      const int projection = work.projection_of_sums(tiles, blocks, begin);
      if (projection == kMaxFusedLora) return;
      const int element = begin + (lane >> work.lanes_log2());
      const int quad = element % (2 * blocks);
      if (quad * 4 >= lora::padded_rank(rank)) return;
      const int first_slice = (lane & ((1 << work.lanes_log2()) - 1)) * kPartSlices;
      const int from = (first_slice * work.p_.projections + projection) * work.p_.rank_stride + quad * 4;
      const int count = max(0, min(kPartSlices, work.p_.slice_count - first_slice));
      const int to = first_slice == 0 ? projection * work.p_.v_stride + quad * 2 : kNowhere;
      packed_ = static_cast<uint32_t>(to << 20 | count << 16 | from);
    }
    // Of p.slices.
    __device__ __forceinline__ int from() const { return static_cast<int>(packed_ & 0xffff); }
    __device__ __forceinline__ int count() const { return static_cast<int>(packed_ >> 16 & 0xf); }
    // Of v.
    __device__ __forceinline__ int to() const { return static_cast<int>(packed_ >> 20); }
    __device__ __forceinline__ bool stores() const { return to() != kNowhere; }
    __device__ __forceinline__ void made() { made_here(packed_); }

   private:
    static constexpr int kNowhere = 0xfff;
    static_assert(kMaxFusedLora * lora_v_stride(kMostFusedRank) < kNowhere && kPartSlices < 16);
    static_assert(kMostFusedInputs / (lora::kSliceBlocks * lora::kInputBlock) * kMaxFusedLora * kMostFusedRank <
                  1 << 16);
    uint32_t packed_ = static_cast<uint32_t>(kNowhere) << 20;
  };

  __device__ __forceinline__ int first_item() const {
    return share_.index + share_.count * helper_;
  }
  __device__ __forceinline__ int items_of_block() const {
    return p_.projections * (share_.end - share_.begin);
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

  const DecodeLoraParams& p_;
  const OutputParams& o_;
  unsigned char* const memory_;
  TokenLoraShared& shared_;
  const LoraShare share_;
  const OwnTiles tiles_;
  const int helper_;
  const int summing_;
  // As far as they are asked for.
  int rows_ = 0, slot_ = -1;
  DeviceLora entry_;
  SlicePlace first_slice_;
  SumsPlace first_sums_;
};

}  // namespace lorikeet::kernels::int4
