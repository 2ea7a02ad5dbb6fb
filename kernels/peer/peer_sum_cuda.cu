#include "kernels/peer/peer_sum_cuda.h"

#include <algorithm>

#include "kernels/base/cuda_check.h"
#include "kernels/cuda/done_counter.cuh"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/cuda/overlap_launch.cuh"
#include "kernels/layer/rms_norm_row.cuh"
#include "kernels/peer/peer_sum_steps.cuh"

namespace lorikeet::kernels {
namespace {

using device::kNormThreads;
using namespace peer;  // the steps of a sum

constexpr int kThreads = 256;

// A CTA per row, and as add_rms_norm (kernels/layer/rms_norm_cuda.cu) behind the sum: the same bits.
//   grid     tokens, at most group.most_blocks; 512 threads, 71 registers (46 to 128: kVectors 1 to 4, kRanks 2 to 8), 432 B of
//            shared memory
//   device   8.0, with memory of the peers mapped
//   waits    for the kernel in front, then for the peers' rows, within `Patience`
//   floor    10 kB over two ranks 3.17 us, NCCL and the norm 9.09 (bench/RESULTS.md, "Two and four GPUs")
template <class T, int kVectors, int kRanks>
__global__ void __launch_bounds__(kNormThreads)
    sum_and_norm(const __grid_constant__ PeerGroup group, const __grid_constant__ AddRmsNormArgs args,
                 bool next_waits) {
  __shared__ float of_warp[2][device::kNormWarps];
  __shared__ PeerTurns seen;
  const int thread = static_cast<int>(threadIdx.x);
  if (!next_waits) device::allow_next_kernel();
  float4 weight[kVectors];  // read-only
#pragma unroll
  for (int v = 0; v < kVectors; v++) {
    const int column = device::norm_column(v, thread);
    if (column < args.width) weight[v] = __ldg(reinterpret_cast<const float4*>(args.weight + column));
  }
  device::wait_for_previous_kernel();

  const auto row_bytes = static_cast<uint64_t>(args.width) * sizeof(T);
  Patience patience(group);
  int round = 0;
  for (int row = blockIdx.x; row < args.tokens; row += gridDim.x, round++) {
    const size_t first = static_cast<size_t>(row) * args.width;
    uint2 own[kVectors];
    float4 x[kVectors];
#pragma unroll
    for (int v = 0; v < kVectors; v++) {
      const int column = device::norm_column(v, thread);
      if (column >= args.width) continue;
      own[v] = *reinterpret_cast<const uint2*>(static_cast<const T*>(args.delta) + first + column);
      x[v] = *reinterpret_cast<const float4*>(args.residual + first + column);
    }
    if (round == 0) {
      read_turns(group, &seen);
      if (thread == 0) leave_sum(group, seen, args.tokens * row_bytes);
    }
    if (seen.failed != 0) {  // who counts rows must not wait for them all the same
      device::signal_done(args.done);
      continue;
    }
    const uint32_t turn = seen.sum_turn;
    const auto offset = [&](int v) { return row * row_bytes + device::norm_column(v, thread) * sizeof(T); };
    const auto used = [&](int v) { return device::norm_column(v, thread) < args.width; };
#pragma unroll
    for (int v = 0; v < kVectors; v++) {
      if (used(v)) send<kRanks>(group, turn, offset(v), own[v]);
    }
    if (round == 0) clear_last_part(group, seen);

    uint2 got[kVectors][kRanks - 1];
#pragma unroll
    for (int v = 0; v < kVectors; v++) {
      if (used(v)) look_at_all<kRanks>(group, turn, offset(v), got[v]);
    }
    wait_for_all<kRanks>(group, turn, used, offset, got, patience);
    float squares = 0;
#pragma unroll
    for (int v = 0; v < kVectors; v++) {
      const int column = device::norm_column(v, thread);
      if (column >= args.width) continue;
      float4 sum;
      bool is_first = true;
      add_in_order<kRanks>(group, own[v], got[v], [&](uint2 part) {
        add_words<T>(sum, part, is_first);
        is_first = false;
      });
      x[v] = device::add_delta<T>(x[v], make_uint2(device::pack<T>(sum.x, sum.y), device::pack<T>(sum.z, sum.w)));
      float* residual_out = args.residual_out != nullptr ? args.residual_out : args.residual;
      *reinterpret_cast<float4*>(residual_out + first + column) = x[v];
      squares = device::add_squares(squares, x[v]);
    }
    squares = device::warp_sum(squares);
    if (thread % device::kWarpSize == 0) of_warp[round & 1][thread / device::kWarpSize] = squares;
    __syncthreads();
    if (next_waits && row + static_cast<int>(gridDim.x) >= args.tokens) device::allow_next_kernel();
    const float factor = device::norm_factor(of_warp[round & 1], args.width, args.epsilon);
    T* out = static_cast<T*>(args.out) + first;
#pragma unroll
    for (int v = 0; v < kVectors; v++) {
      const int column = device::norm_column(v, thread);
      if (column < args.width) *reinterpret_cast<uint2*>(out + column) = device::normed<T>(x[v], factor, weight[v]);
    }
    device::signal_done(args.done);
  }
}

// A thread per 16 bytes.
//   grid     bytes / 16 / 256, at most group.most_blocks; 256 threads, 48 registers (40 to 120: kRanks 2 to 8), 304 B of shared memory
//   device   8.0, with memory of the peers mapped
//   waits    as sum_and_norm
//   floor    10 kB over two ranks 2.45 us, NCCL 7.16
template <class T, int kRanks>
__global__ void __launch_bounds__(kThreads)
    sum(const __grid_constant__ PeerGroup group, T* data, uint64_t count, bool next_waits) {
  constexpr uint64_t kElements = kVectorBytes / sizeof(T);
  __shared__ PeerTurns seen;
  if (!next_waits) device::allow_next_kernel();
  device::wait_for_previous_kernel();
  read_turns(group, &seen);
  if (threadIdx.x == 0) leave_sum(group, seen, count * sizeof(T));
  if (seen.failed != 0) return;
  const uint32_t turn = seen.sum_turn;
  const uint64_t vectors = (count + kElements - 1) / kElements;
  const uint64_t begin = blockIdx.x * kThreads + threadIdx.x;
  const uint64_t step = uint64_t{gridDim.x} * kThreads;
  Patience patience(group);
  for (uint64_t i = begin; i < vectors; i += step) {
    send<kRanks>(group, turn, i * kVectorBytes, load_vector(data + i * kElements, count - i * kElements));
  }
  clear_last_part(group, seen);
  for (uint64_t i = begin; i < vectors; i += step) {
    const uint64_t offset = i * kVectorBytes;
    uint4 got[1][kRanks - 1];
    look_at_all<kRanks>(group, turn, offset, got[0]);
    const uint4 own = load_vector(data + i * kElements, count - i * kElements);
    wait_for_all<kRanks>(
        group, turn, [](int) { return true; }, [&](int) { return offset; }, got, patience);
    VectorSum<T> total;
    bool is_first = true;
    add_in_order<kRanks>(group, own, got[0], [&](uint4 part) {
      total.add(part, is_first);
      is_first = false;
    });
    store_vector(data + i * kElements, count - i * kElements, total.rounded());
  }
}

// A thread per word, which travels beside the number of its turn: words of any bits.
//   grid     words / 256, at most group.most_blocks; 256 threads, 30 registers, 304 B of shared memory; waits as sum_and_norm
__global__ void __launch_bounds__(kThreads) gather(const __grid_constant__ PeerGroup group, const uint32_t* send,
                                                   uint32_t* receive, int words, bool next_waits) {
  __shared__ PeerTurns seen;
  if (!next_waits) device::allow_next_kernel();
  device::wait_for_previous_kernel();
  read_turns(group, &seen);
  const uint32_t turn = seen.gather_turn;
  if (threadIdx.x == 0) {
    leave_turn(&group.turns->gather_arrived, [&] { group.turns->gather_turn = turn + 1; });
  }
  if (seen.failed != 0) return;
  const int begin = blockIdx.x * kThreads + threadIdx.x;
  const int step = gridDim.x * kThreads;
  for (int i = begin; i < words; i += step) {
    const uint32_t word = send[i];
    for (int r = 0; r < group.ranks; r++) {
      if (r != group.rank) {
        store_to_peer(gather_place(group, r, turn, group.rank) + i, make_uint2(word, turn));
      }
    }
    receive[group.rank * words + i] = word;
  }
  Patience patience(group);
  for (int r = 0; r < group.ranks; r++) {
    if (r == group.rank) continue;
    const uint2* place = gather_place(group, group.rank, turn, r);
    for (int i = begin; i < words; i += step) {
      uint2 got;
      do {
        look(place + i, got);
      } while (got.y != turn && patience.look_again());
      receive[r * words + i] = got.x;
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

template <class T, int kRanks>
void launch_norm(const PeerGroup& group, const AddRmsNormArgs& args, cudaStream_t stream) {
  constexpr int kColumns = kNormThreads * device::kNormVector;
  static_assert(4 * kColumns == kMostPeerNormWidth);
  const int blocks = std::min(args.tokens, group.most_blocks);
  // Who waits for `done` does so for a bounded time, which must not begin before the peers have sent.
  const bool next_waits = group.shares_device || args.done != nullptr;
  const auto launch = [&](auto* kernel) {
    device::launch_overlapped(kernel, blocks, kNormThreads, 0, stream, group, args, next_waits);
  };
  if (args.width <= kColumns) return launch(sum_and_norm<T, 1, kRanks>);
  if (args.width <= 2 * kColumns) return launch(sum_and_norm<T, 2, kRanks>);
  if (args.width <= 3 * kColumns) return launch(sum_and_norm<T, 3, kRanks>);
  launch(sum_and_norm<T, 4, kRanks>);
}

void check_group(const PeerGroup& group) {
  CHECK_GE(group.ranks, 2);
  CHECK_LE(group.ranks, kMostPeers);
  CHECK_GE(group.most_blocks, 1);
}

int blocks_for(const PeerGroup& group, uint64_t threads) {
  return static_cast<int>(
      std::min<uint64_t>((threads + kThreads - 1) / kThreads, static_cast<uint64_t>(group.most_blocks)));
}

}  // namespace

uint64_t peer_inbox_bytes(int32_t ranks) {
  return sum_places_bytes(ranks) + static_cast<uint64_t>(ranks) * (2 * kGatherPlace + 2 * kMostPeerRows * kRowPlace);
}

uint64_t peer_turns_bytes() {
  return sizeof(PeerTurns);
}

void clear_peer_inbox(const PeerMemory& inbox, int32_t ranks, const DeviceBuffer& turns, const Stream& stream) {
  fill_bytes(inbox.data(), 0xff, peer_inbox_bytes(ranks), stream);  // kNotSent; and no turn's number for long
  fill_bytes(turns.data(), 0, peer_turns_bytes(), stream);
  stream.synchronize();
}

void peer_sum_cuda(const PeerGroup& group, void* data, uint64_t count, Dtype dtype, const Stream& stream) {
  check_group(group);
  CHECK_LE(count * size_of(dtype), kMostPeerSumBytes);
  CHECK_EQ(reinterpret_cast<uintptr_t>(data) % kVectorBytes, 0U);
  if (count == 0) return;
  const auto launch = [&](auto element) {
    using T = typename decltype(element)::type;
    with_ranks(group.ranks, [&](auto ranks) {
      const int blocks = blocks_for(group, (count * sizeof(T) + kVectorBytes - 1) / kVectorBytes);
      device::launch_overlapped(sum<T, decltype(ranks)::value>, blocks, kThreads, 0, stream.handle(), group,
                                static_cast<T*>(data), count, group.shares_device);
    });
  };
  if (dtype == Dtype::f32) {
    launch(Element<float>{});
  } else {
    with_activation_type(dtype, launch);
  }
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

void peer_sum_norm_cuda(const PeerGroup& group, const AddRmsNormArgs& args, const Stream& stream) {
  check_group(group);
  CHECK_EQ(args.width % 8, 0);
  CHECK_LE(args.width, kMostPeerNormWidth);
  CHECK_LE(static_cast<uint64_t>(args.tokens) * static_cast<uint64_t>(args.width) * size_of(args.dtype),
           kMostPeerSumBytes);
  CHECK(args.rows == nullptr && args.delta != nullptr);
  if (args.tokens == 0) return;
  with_activation_type(args.dtype, [&](auto element) {
    with_ranks(group.ranks, [&](auto ranks) {
      launch_norm<typename decltype(element)::type, decltype(ranks)::value>(group, args, stream.handle());
    });
  });
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

void peer_gather_cuda(const PeerGroup& group, const void* send, void* receive, uint64_t bytes, const Stream& stream) {
  check_group(group);
  CHECK_LE(bytes, kMostPeerGatherBytes);
  CHECK_EQ(bytes % 4, 0U);
  if (bytes == 0) return;
  const auto words = static_cast<int>(bytes / 4);
  device::launch_overlapped(gather, blocks_for(group, bytes / 4), kThreads, 0, stream.handle(), group,
                            static_cast<const uint32_t*>(send), static_cast<uint32_t*>(receive), words,
                            group.shares_device);
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

}  // namespace lorikeet::kernels
