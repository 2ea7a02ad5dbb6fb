// Sums in two shots (kernels/peer/two_shot_plan.h): 2 (N - 1) / N of the tensor's bytes leave each rank instead of N - 1
// times as many, for one step more. What a block sends is a round ahead of what it adds, and two of what it finishes, so that
// a long tensor fills the links. A word is added in float in the order of the ranks and rounded once, as in one shot.
//
// No two ranks' blocks can wait for each other: every block goes through its rows upwards and sends before it waits, so
// that the first row which somebody waits for has been sent by all.
#include <algorithm>

#include "kernels/base/cuda_check.h"
#include "kernels/base/rounding.h"
#include "kernels/cuda/done_counter.cuh"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/cuda/overlap_launch.cuh"
#include "kernels/layer/rms_norm_row.cuh"
#include "kernels/peer/peer_sum_cuda.h"
#include "kernels/peer/peer_sum_steps.cuh"
#include "kernels/peer/two_shot_plan.h"

namespace lorikeet::kernels {
namespace {

using device::kNormThreads;
using namespace peer;  // the steps of a sum

constexpr int kSumThreads = 256;
// Of a multiprocessor, at most. Two ranks sum long prompts, where more words in flight count more than registers.
constexpr int sum_blocks(int ranks) {
  return ranks <= 2 ? 4 : 2;
}
constexpr int norm_blocks(int ranks) {
  return ranks <= 2 ? 2 : 1;
}
constexpr int kNormColumns = kNormThreads * device::kNormVector;
constexpr int kLanes = device::kWarpSize;  // of a chunk: each has a vector
constexpr int kAhead = 1;                  // rounds between a part, its sum, and what is made of it

// What the owner of a chunk sends to all: the sum of its part and the others' in the order of the ranks.
template <class T, int kRanks>
__device__ __forceinline__ uint2 rounded_sum(const PeerGroup& group, uint2 own, const uint2 (&got)[kRanks - 1]) {
  float4 sum;
  bool is_first = true;
  add_in_order<kRanks>(group, own, got, [&](uint2 part) {
    add_words<T>(sum, part, is_first);
    is_first = false;
  });
  return to_send(make_uint2(device::pack<T>(sum.x, sum.y), device::pack<T>(sum.z, sum.w)));
}
template <class T, int kRanks>
__device__ __forceinline__ uint4 rounded_sum(const PeerGroup& group, uint4 own, const uint4 (&got)[kRanks - 1]) {
  VectorSum<T> sum;
  bool is_first = true;
  add_in_order<kRanks>(group, own, got, [&](uint4 part) {
    sum.add(part, is_first);
    is_first = false;
  });
  return to_send(sum.rounded());
}

// A CTA per row, and as add_rms_norm behind the sum: the same bits. A warp's vectors of a row make a chunk.
//   grid     tokens, at most norm_blocks for each of group.most_blocks; 512 threads, 64 registers (103 to 128 over more ranks
//            than two), 432 B of shared memory
//   device   8.0, with memory of the peers mapped
//   waits    for the kernel in front, then for the peers' parts and sums, within `Patience`
//   floor    2,048 rows of 5,120 over two ranks 88 us, NCCL and the norm 125 (bench/RESULTS.md, "Two and four GPUs")
template <class T, int kVectors, int kRanks>
__global__ void __launch_bounds__(kNormThreads, norm_blocks(kRanks))
    two_shot_norm(const __grid_constant__ PeerGroup group, const __grid_constant__ TwoShotPlan plan,
                  const __grid_constant__ AddRmsNormArgs args, bool next_waits) {
  __shared__ float of_warp[2][device::kNormWarps];
  __shared__ PeerTurns seen;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kLanes;
  if (!next_waits) device::allow_next_kernel();
  device::wait_for_previous_kernel();
  read_turns(group, &seen);
  if (thread == 0) leave_sum(group, seen, plan.place_bytes());
  const int blocks = static_cast<int>(gridDim.x);
  const int rounds = (args.tokens - static_cast<int>(blockIdx.x) + blocks - 1) / blocks;
  if (seen.failed != 0) {  // who counts rows must not wait for them all the same
    for (int i = 0; i < rounds; i++) device::signal_done(args.done);
    return;
  }
  const uint32_t turn = seen.sum_turn;
  Patience patience(group);
  const auto row_of = [&](int round) { return static_cast<int>(blockIdx.x) + round * blocks; };
  const auto chunk_of = [&](int v) { return v * device::kNormWarps + thread / kLanes; };
  const auto is_used = [&](int v) { return device::norm_column(v, thread) < args.width; };
  const auto owned = [&](int v) { return is_used(v) && plan.owner(chunk_of(v)) == group.rank; };
  const auto offset_of = [&](int row, int v) { return plan.offset(row, chunk_of(v)) + lane * sizeof(uint2); };
  T* delta = static_cast<T*>(const_cast<void*>(args.delta));
  const auto delta_at = [&](int row, int v) {
    return reinterpret_cast<uint2*>(delta + static_cast<size_t>(row) * args.width + device::norm_column(v, thread));
  };

  for (int round = 0; round < rounds + 2 * kAhead; round++) {
    const bool sends = round < rounds;
    const bool adds = round >= kAhead && round < rounds + kAhead;
    const bool ends = round >= 2 * kAhead;
    const int sent = row_of(round);
    const int added = row_of(round - kAhead);
    const int ended = row_of(round - 2 * kAhead);
    const auto sum_of = [&](int v) {
      return sum_place(group, group.rank, turn, plan.owner(chunk_of(v))) + plan.first_sum() + offset_of(ended, v);
    };
    // All that the round reads, before any of it is waited for.
    uint2 part[kVectors];  // of this rank: what is sent, or added
    uint2 got[kVectors][kRanks - 1];
    uint2 sum[kVectors];
    float4 x[kVectors];
#pragma unroll
    for (int v = 0; v < kVectors; v++) {
      if (!is_used(v)) continue;
      if (owned(v)) {
        if (adds) {
          part[v] = *delta_at(added, v);
          look_at_all<kRanks>(group, turn, offset_of(added, v), got[v]);
        }
        if (ends) sum[v] = *delta_at(ended, v);
      } else {
        if (sends) part[v] = *delta_at(sent, v);
        if (ends) look(sum_of(v), sum[v]);
      }
      if (ends) {
        x[v] = *reinterpret_cast<const float4*>(args.residual + static_cast<size_t>(ended) * args.width +
                                                device::norm_column(v, thread));
      }
    }
    if (sends) {
#pragma unroll
      for (int v = 0; v < kVectors; v++) {
        if (!is_used(v) || owned(v)) continue;
        store_to_peer(sum_place(group, plan.owner(chunk_of(v)), turn, group.rank) + offset_of(sent, v),
                      to_send(part[v]));
      }
    }
    if (round == 0) clear_last_part(group, seen);
    if (adds) {
      const auto offset = [&](int v) { return offset_of(added, v); };
      wait_for_all<kRanks>(group, turn, owned, offset, got, patience);
#pragma unroll
      for (int v = 0; v < kVectors; v++) {
        if (!owned(v)) continue;
        const uint2 total = rounded_sum<T, kRanks>(group, part[v], got[v]);
        // What was added to before all had come is no sum: others must not take it for one.
        if (!patience.ended()) send<kRanks>(group, turn, plan.first_sum() + offset(v), total);
        *delta_at(added, v) = total;
      }
    }
    if (!ends) continue;

    for (;;) {
      bool missing = false;
#pragma unroll
      for (int v = 0; v < kVectors; v++) missing |= is_used(v) && !is_there(sum[v]);
      if (!missing || !patience.look_again()) break;
#pragma unroll
      for (int v = 0; v < kVectors; v++) {
        if (is_used(v) && !is_there(sum[v])) look(sum_of(v), sum[v]);
      }
    }
    const size_t first = static_cast<size_t>(ended) * args.width;
    float squares = 0;
#pragma unroll
    for (int v = 0; v < kVectors; v++) {
      if (!is_used(v)) continue;
      x[v] = device::add_delta<T>(x[v], sum[v]);
      float* residual_out = args.residual_out != nullptr ? args.residual_out : args.residual;
      *reinterpret_cast<float4*>(residual_out + first + device::norm_column(v, thread)) = x[v];
      squares = device::add_squares(squares, x[v]);
    }
    squares = device::warp_sum(squares);
    if (lane == 0) of_warp[round & 1][thread / device::kWarpSize] = squares;
    __syncthreads();
    if (next_waits && round == rounds + 2 * kAhead - 1) device::allow_next_kernel();
    const float factor = device::norm_factor(of_warp[round & 1], args.width, args.epsilon);
    T* out = static_cast<T*>(args.out) + first;
#pragma unroll
    for (int v = 0; v < kVectors; v++) {
      if (!is_used(v)) continue;
      const int column = device::norm_column(v, thread);
      const float4 weight = __ldg(reinterpret_cast<const float4*>(args.weight + column));
      *reinterpret_cast<uint2*>(out + column) = device::normed<T>(x[v], factor, weight);
    }
    device::signal_done(args.done);
  }
}

// A thread per 16 bytes; a warp's make a chunk.
//   grid     bytes / 16 / 256, at most sum_blocks for each of group.most_blocks; 256 threads, at most 64 registers (128 over more
//            ranks than two), 304 B of shared memory; device and waits as two_shot_norm
//   floor    20 MiB over two ranks 78 us, NCCL 92; the links alone 56
template <class T, int kRanks>
__global__ void __launch_bounds__(kSumThreads, sum_blocks(kRanks))
    two_shot_sum(const __grid_constant__ PeerGroup group, const __grid_constant__ TwoShotPlan plan, T* data,
                 uint64_t count, bool next_waits) {
  constexpr uint64_t kElements = kVectorBytes / sizeof(T);
  __shared__ PeerTurns seen;
  if (!next_waits) device::allow_next_kernel();
  device::wait_for_previous_kernel();
  read_turns(group, &seen);
  if (threadIdx.x == 0) leave_sum(group, seen, plan.place_bytes());
  if (seen.failed != 0) return;
  const uint32_t turn = seen.sum_turn;
  const uint64_t vectors = (count + kElements - 1) / kElements;
  const uint64_t begin = blockIdx.x * kSumThreads + threadIdx.x;
  const uint64_t step = uint64_t{gridDim.x} * kSumThreads;
  const int rounds = begin < vectors ? static_cast<int>((vectors - begin + step - 1) / step) : 0;
  Patience patience(group);
  const auto vector_of = [&](int round) { return begin + static_cast<uint64_t>(round) * step; };
  const auto owner_of = [&](uint64_t i) { return plan.owner(static_cast<int32_t>(i / kLanes)); };
  const auto offset_of = [&](uint64_t i) {
    return plan.offset(0, static_cast<int32_t>(i / kLanes)) + i % kLanes * kVectorBytes;
  };
  const auto load = [&](uint64_t i) { return load_vector(data + i * kElements, count - i * kElements); };
  const auto store = [&](uint64_t i, uint4 v) { store_vector(data + i * kElements, count - i * kElements, v); };

  for (int round = 0; round == 0 || round < rounds + 2 * kAhead; round++) {
    const uint64_t sent = vector_of(round);
    const uint64_t added = vector_of(round - kAhead);
    const uint64_t ended = vector_of(round - 2 * kAhead);
    const bool sends = round < rounds && owner_of(sent) != group.rank;
    const bool adds = round >= kAhead && round < rounds + kAhead && owner_of(added) == group.rank;
    const bool ends = round >= 2 * kAhead && round < rounds + 2 * kAhead && owner_of(ended) != group.rank;
    const auto* sum_at =
        ends ? sum_place(group, group.rank, turn, owner_of(ended)) + plan.first_sum() + offset_of(ended) : nullptr;
    // All that the round reads, before any of it is waited for.
    uint4 part, own, sum;
    uint4 got[1][kRanks - 1];
    if (sends) part = load(sent);
    if (adds) {
      own = load(added);
      look_at_all<kRanks>(group, turn, offset_of(added), got[0]);
    }
    if (ends) look(sum_at, sum);
    if (sends) {
      store_to_peer(sum_place(group, owner_of(sent), turn, group.rank) + offset_of(sent), to_send(part));
    }
    if (round == 0) clear_last_part(group, seen);
    if (adds) {
      wait_for_all<kRanks>(
          group, turn, [](int) { return true; }, [&](int) { return offset_of(added); }, got, patience);
      const uint4 total = rounded_sum<T, kRanks>(group, own, got[0]);
      if (!patience.ended()) send<kRanks>(group, turn, plan.first_sum() + offset_of(added), total);
      store(added, total);
    }
    if (ends) {
      while (!is_there(sum) && patience.look_again()) look(sum_at, sum);
      store(ended, sum);
    }
  }
}

// f(integral constant) for the smallest number of ranks that a kernel is made for and holds all.
template <class F>
void with_ranks(int32_t ranks, F&& f) {
  if (ranks <= 2) return f(std::integral_constant<int, 2>{});
  if (ranks <= 4) return f(std::integral_constant<int, 4>{});
  f(std::integral_constant<int, kMostPeers>{});
}

// Where ranks share a device, blocks that wait must leave room: one for each of most_blocks.
int blocks_for(const PeerGroup& group, uint64_t wanted, int of_multiprocessor) {
  const int most = group.shares_device ? group.most_blocks : group.most_blocks * of_multiprocessor;
  return static_cast<int>(std::min<uint64_t>(wanted, static_cast<uint64_t>(most)));
}

TwoShotPlan plan_of_rows(int32_t ranks, int32_t rows, int32_t width) {
  return {ranks, rows, divide_up(width, kLanes * device::kNormVector), kLanes * static_cast<int32_t>(sizeof(uint2))};
}

// The most rows of a piece.
int32_t most_rows(int32_t ranks, int32_t width) {
  return static_cast<int32_t>(peer_place_bytes(ranks) / plan_of_rows(ranks, 1, width).place_bytes());
}

template <class T>
void queue_norm(const PeerGroup& group, const AddRmsNormArgs& args, const Stream& stream) {
  const TwoShotPlan plan = plan_of_rows(group.ranks, args.tokens, args.width);
  // Who waits for `done` does so for a bounded time, which must not begin before the peers have sent.
  const bool next_waits = group.shares_device || args.done != nullptr;
  const int blocks = blocks_for(group, static_cast<uint64_t>(args.tokens), norm_blocks(group.ranks));
  with_ranks(group.ranks, [&](auto ranks) {
    constexpr int kRanks = decltype(ranks)::value;
    const auto launch = [&](auto* kernel) {
      device::launch_overlapped(kernel, blocks, kNormThreads, 0, stream.handle(), group, plan, args, next_waits);
    };
    if (args.width <= 3 * kNormColumns) return launch(two_shot_norm<T, 3, kRanks>);
    launch(two_shot_norm<T, 4, kRanks>);
  });
}

void check_group(const PeerGroup& group) {
  CHECK_GE(group.ranks, 2);
  CHECK_LE(group.ranks, kMostPeers);
  CHECK_GE(group.most_blocks, 1);
}

}  // namespace

bool peer_two_shot_takes(int32_t ranks, int32_t width) {
  return width % 8 == 0 && width <= kMostPeerNormWidth && plan_of_rows(ranks, 1, width).all_own();
}

void peer_two_shot_sum_cuda(const PeerGroup& group, void* data, uint64_t count, Dtype dtype, const Stream& stream) {
  check_group(group);
  CHECK_EQ(reinterpret_cast<uintptr_t>(data) % kVectorBytes, 0U);
  constexpr uint64_t kChunkBytes = uint64_t{kLanes} * kVectorBytes;
  const uint64_t chunks = divide_up(count * size_of(dtype), kChunkBytes);
  const uint64_t most = peer_place_bytes(group.ranks) / (2 * kChunkBytes) * static_cast<uint64_t>(group.ranks);
  const uint64_t pieces = divide_up(chunks, most);
  if (pieces == 0) return;
  const uint64_t of_piece = divide_up(chunks, pieces);
  const uint64_t elements = of_piece * kChunkBytes / size_of(dtype);
  const auto queue = [&](auto element) {
    using T = typename decltype(element)::type;
    for (uint64_t first = 0; first < count; first += elements) {
      const uint64_t piece = std::min(elements, count - first);
      TwoShotPlan plan{group.ranks, 1, static_cast<int32_t>(divide_up(piece * sizeof(T), kChunkBytes)), kChunkBytes};
      CHECK(plan.all_own()) << piece << " elements for " << group.ranks << " ranks";
      const int blocks = blocks_for(group, divide_up(piece * sizeof(T), uint64_t{kSumThreads} * kVectorBytes),
                                    sum_blocks(group.ranks));
      with_ranks(group.ranks, [&](auto ranks) {
        device::launch_overlapped(two_shot_sum<T, decltype(ranks)::value>, blocks, kSumThreads, 0, stream.handle(),
                                  group, plan, static_cast<T*>(data) + first, piece, group.shares_device);
      });
    }
  };
  if (dtype == Dtype::f32) {
    queue(Element<float>{});
  } else {
    with_activation_type(dtype, queue);
  }
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

void peer_two_shot_norm_cuda(const PeerGroup& group, const AddRmsNormArgs& args, const Stream& stream) {
  check_group(group);
  CHECK(peer_two_shot_takes(group.ranks, args.width)) << args.width << " columns for " << group.ranks << " ranks";
  CHECK(args.rows == nullptr && args.delta != nullptr);
  const int32_t pieces = divide_up(args.tokens, most_rows(group.ranks, args.width));
  if (pieces == 0) return;
  const int32_t rows = divide_up(args.tokens, pieces);
  const auto behind = [&](auto* data, int32_t row, uint64_t element_bytes) {  // where `row` begins
    using Byte =
        std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(data)>>, const unsigned char, unsigned char>;
    const auto bytes = static_cast<uint64_t>(row) * static_cast<uint64_t>(args.width) * element_bytes;
    return data == nullptr ? data : reinterpret_cast<decltype(data)>(reinterpret_cast<Byte*>(data) + bytes);
  };
  with_activation_type(args.dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    for (int32_t first = 0; first < args.tokens; first += rows) {
      AddRmsNormArgs piece = args;
      piece.residual = behind(args.residual, first, sizeof(float));
      piece.residual_out = behind(args.residual_out, first, sizeof(float));
      piece.delta = behind(args.delta, first, sizeof(T));
      piece.out = behind(args.out, first, sizeof(T));
      piece.tokens = std::min(rows, args.tokens - first);
      queue_norm<T>(group, piece, stream);
    }
  });
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

}  // namespace lorikeet::kernels
