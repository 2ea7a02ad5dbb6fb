// LoRA of several tokens inside of the int4 product whose blocks keep x (kernels/int4/decode/int4_decode.cuh), by the
// warps that stream: no thread is added, so that blocks of the kernels in front and behind find room beside. Included
// by it.
//
// A x is made by a kernel in front of the product (lora_parts.h), which takes x from where it comes from at the same
// time as the product does: both wait for its writer by a counter. The product waits for the kernel in front of it when
// it needs A x, at its end. So nobody waits for a block that has not begun.
//
// B (A x). The work goes to the warps that have least to stream, often nothing: helper h is the h-th from the last. The
// first describes the tokens' adapters while x comes; they, and some more where they are few, ask for B, which is read-only,
// before they stream, and behind it they add the parts of A x and make the sums of the block's tiles with the steps of kernels/lora/lora_product.cuh.
// Who finishes the outputs adds these.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/int4/decode/lora_parts.h"
#include "kernels/int4/decode/sums.cuh"

namespace lorikeet::kernels::int4 {

// Describes the tokens' adapters in shared memory. By one warp, in three steps, so that what it asks the memory for is
// there when it needs it.
class TokensDescription {
 public:
  // All of the tables at once: what does not count is not used.
  __device__ __forceinline__ void ask_tables(const DecodeLoraParams& p, int m) {
    const int lane = threadIdx.x % device::kWarpSize;
    counts_ = *p.counts;
    tile_ = p.tiles[min(lane / kMaxFusedLora, p.most_tiles - 1)];
    if (lane < m) order_ = p.order[lane];
  }
  __device__ __forceinline__ void ask_entries(const DecodeLoraParams& p) {
    const int lane = threadIdx.x % device::kWarpSize;
    const int projection = lane % kMaxFusedLora;
    exists_ = lane / kMaxFusedLora < min(counts_.tiles, kMostTokens) && projection < p.projections;
    if (exists_ && tile_.slot >= 0) entry_ = p.entries[static_cast<int64_t>(tile_.slot) * p.slot_stride + projection];
  }
  // A barrier must follow.
  __device__ __forceinline__ void write(const DecodeLoraParams& p, LoraShared& shared, int m) const {
    const int lane = threadIdx.x % device::kWarpSize;
    const int i = lane / kMaxFusedLora;  // of the tiles of rows
    const int projection = lane % kMaxFusedLora;
    const int blocks = lora::rank_tiles(entry_.rank);
    int first = 0;
    int all = 0;
#pragma unroll
    for (int j = 0; j < kMostTokens; j++) {
      const int of_tile = __shfl_sync(device::kFullWarp, blocks, j * kMaxFusedLora + projection);
      if (j < i) first += of_tile;
      all += of_tile;
    }
    uint32_t members = 0;
    for (int j = 0; j < m; j++) {
      const int token = __shfl_sync(device::kFullWarp, order_, j);
      if (!exists_ || j < tile_.first || j >= tile_.first + tile_.count) continue;
      members |= 1U << token;
      shared.tokens[projection][token] = {entry_.dora_factor, entry_.scale, entry_.rank};
    }
    RankBlock* to = shared.blocks(p, projection) + first;
    for (int block = 0; block < blocks; block++) {
      to[block] = {static_cast<const unsigned char*>(entry_.b) + block * lora::kBlockBytes, blocks * lora::kBlockBytes,
                   static_cast<uint16_t>(block * lora::kRankTile), static_cast<uint16_t>(members)};
    }
    const int most = __reduce_max_sync(device::kFullWarp, blocks);
    if (i < kMostTokens) {
      shared.groups[projection][i] = {static_cast<uint16_t>(first), static_cast<uint16_t>(blocks), members};
    }
    const int most_blocks = __reduce_max_sync(device::kFullWarp, all);
    if (lane == 0) {
      shared.most_blocks = max(1, most_blocks);
      shared.parts_taken = 0;
      shared.group_count = counts_.adapter_tiles;
      shared.ranks = most * lora::kRankTile;
    }
  }

 private:
  LoraCounts counts_{};
  LoraTile tile_{};
  int order_ = 0;
  bool exists_ = false;
  DeviceLora entry_;
};

// What the warps of a block do for several tokens. `items`: parts of tiles that the block streams, `own`: the tiles that
// it finishes.
template <class T>
class TokensLoraWork {
 public:
  __device__ __forceinline__ TokensLoraWork(const DecodeLoraParams& p, const OutputParams& o,
                                            unsigned char* block_memory, const OwnTiles& own, int items, int m,
                                            int warp)
      : p_(p),
        o_(o),
        memory_(block_memory),
        shared_(*reinterpret_cast<LoraShared*>(block_memory + p.offset)),
        own_(own),
        m_(m),
        helpers_(kDecodeWarps - items % kDecodeWarps),
        asking_(max(helpers_, min(kMostAsking, 2 * own.count))),
        helper_(kDecodeWarps - 1 - warp) {}

  // The tokens' adapters, which are read-only. A barrier of the block must follow.
  __device__ __forceinline__ void describe(const TokensDescription& tokens) const {
    if (helper_ > 0) return;
    if (threadIdx.x % device::kWarpSize == 0) {
      device::barrier_init(v_barrier(), helpers_ * device::kWarpSize);
      device::barrier_init(b_barrier(), asking_ * device::kWarpSize);
    }
    tokens.write(p_, shared_, m_);
  }

  // Asks for B, when the tokens are described.
  __device__ __forceinline__ void stage_b() const {
    if (helper_ < asking_) TilesOfB(p_, o_, memory_, shared_, own_).stage(helper_, asking_, b_barrier());
  }

  // When the warp has streamed what it has: B v. A barrier of the block must follow, and the kernel in front has ended
  // behind it.
  __device__ __forceinline__ void make_sums() const {
    if (helper_ < helpers_) bring_v();
    TilesOfB(p_, o_, memory_, shared_, own_).template make_sums<T>(m_, v_barrier(), b_barrier());
  }

 private:
  __device__ __forceinline__ void bring_v() const {
    device::wait_for_previous_kernel();
    gather_v();
    device::barrier_arrive(v_barrier());
  }

  static constexpr int kMostAsking = 8;  // more than helpers_ only where those are fewer

  __device__ __forceinline__ uint32_t v_barrier() const { return device::shared_address(memory_) + p_.barriers_offset; }
  __device__ __forceinline__ uint32_t b_barrier() const { return v_barrier() + 8; }

  // v of the projections of the block's tiles: the parts of four neighbouring ranks at a time, added in their order.
  __device__ __forceinline__ void gather_v() const {
    if (own_.count == 0) return;
    const OwnProjections of_tiles(p_, o_, own_);
    const int quads = shared_.ranks / 4;
    const int elements = (of_tiles.last - of_tiles.first + 1) * m_ * quads;
    const int lane = threadIdx.x % device::kWarpSize;
    const int stride = m_ * p_.projections * p_.rank_stride;
    for (int e = helper_ * device::kWarpSize + lane; e < elements; e += helpers_ * device::kWarpSize) {
      const int row = e / quads;
      const int quad = e - row * quads;
      const int of_projection = row / m_;
      const int token = row - of_projection * m_;
      const int projection = of_tiles.first + of_projection;
      if (quad * 4 >= lora::padded_rank(shared_.tokens[projection][token].rank)) continue;
      const float* from = p_.parts + (token * p_.projections + projection) * p_.rank_stride + quad * 4;
      float4 parts[kMostParts];  // all on their way at once
#pragma unroll
      for (int i = 0; i < kMostParts; i++) {
        parts[i] =
            i < p_.part_count ? __ldcg(reinterpret_cast<const float4*>(from + i * stride)) : make_float4(0, 0, 0, 0);
      }
      float v[4] = {};
#pragma unroll
      for (int i = 0; i < kMostParts; i++) {
        v[0] += parts[i].x;
        v[1] += parts[i].y;
        v[2] += parts[i].z;
        v[3] += parts[i].w;
      }
      RankPair* to = shared_.v(p_) + (projection * m_ + token) * p_.v_stride + quad * 2;
#pragma unroll
      for (int i = 0; i < 2; i++) {
        RankPair pair;
#pragma unroll
        for (int j = 0; j < 2; j++) {
          pair.main[j] = lora::to_tf32(v[2 * i + j]);
          pair.rest[j] = lora::to_tf32(v[2 * i + j] - __uint_as_float(pair.main[j]));
        }
        to[i] = pair;
      }
    }
  }

  const DecodeLoraParams& p_;
  const OutputParams& o_;
  unsigned char* const memory_;
  LoraShared& shared_;
  const OwnTiles& own_;
  const int m_, helpers_, asking_, helper_;
};

// Stores one token's outputs in rows g and g + 8 of a tile, completed by its adapter. sums: B v of the token's outputs
// in that tile.
template <class T>
__device__ __forceinline__ void store_outputs_with_lora(const DecodeLoraParams& p, const OutputParams& o,
                                                        const LoraShared& shared, int tile, int g, int token,
                                                        float sum0, float sum1, const float* sums) {
  store_outputs<T>(o, tile, g, token, sum0, sum1, [&](int half, float value) {
    const float base = device::to_float(device::from_float<T>(value));
    const LoraOutput of = lora_output(p, o, tile, g + 8 * half);
    if (of.projection < 0) return base;
    return complete_by_adapter(base, shared.tokens[of.projection][token], of.output, sums[g + 8 * half]);
  });
}

}  // namespace lorikeet::kernels::int4
