// Sums over the ranks of one host, through memory that all of them reach: each rank writes its part into every other's
// inbox and adds what it finds in its own, in the order of the ranks, in float, rounded once. So all ranks hold the
// same bits, whatever the timing, and a sum's bits depend neither on its place in a tensor nor on the tensor's size.
//
// The ranks queue the same operations in the same order with the same sizes. Operations may be part of captured graphs:
// whose turn an inbox has is kept in device memory.
//
// Nothing waits for ever: each wait ends when the host raises `abort` or after most_ns. Results are undefined then, and
// `failure` says so; operations queued behind return at once.
#pragma once

#include <cstdint>

#include "kernels/base/device.h"
#include "kernels/base/dtype.h"
#include "kernels/base/error.h"
#include "kernels/layer/rms_norm_cuda.h"
#include "kernels/peer/peer_memory.h"

namespace lorikeet::kernels {

inline constexpr int32_t kMostPeers = 8;                    // ranks of a group
inline constexpr uint64_t kMostPeerSumBytes = 1280 << 10;   // of one sum in one shot
inline constexpr uint64_t kMostPeerGatherBytes = 16 << 10;  // of one rank's part
inline constexpr int32_t kMostPeerNormWidth = 8192;
inline constexpr int32_t kMostPeerRows = 64;        // of kernels that exchange words themselves (peer_row.cuh)
inline constexpr int32_t kMostPeerRowWords = 2048;  // of one rank's part of a row's exchange

// What ends a wait early, in PeerGroup::failure.
enum class PeerFailure : uint32_t { none = 0, aborted = 1, timeout = 2 };

// Whose turn it is, in device memory of one rank: written by the last block of an operation that has read it.
struct PeerTurns;

// A rank's view of the group, passed to the kernels.
struct PeerGroup {
  int32_t rank = 0;
  int32_t ranks = 1;
  unsigned char* inboxes[kMostPeers] = {};  // [rank]: of peer_inbox_bytes each, as they are mapped here
  PeerTurns* turns = nullptr;
  const uint32_t* abort = nullptr;  // host memory, page-locked: not 0 ends all waits
  uint32_t* failure = nullptr;      // likewise: a PeerFailure
  uint64_t most_ns = 0;             // of one wait
  int32_t most_blocks = 0;          // of one operation
  // Ranks share a device, so that a block which waits may keep another rank's kernels off: the kernel behind begins
  // only when nothing waits.
  bool shares_device = false;
};

// A sender's place in each part of an inbox: the whole tensor of a sum in one shot, 2 / ranks of it in two. Two ranks sum
// long prompts, too.
constexpr uint64_t peer_place_bytes(int32_t ranks) {
  return ranks <= 2 ? 20 << 20 : 2 << 20;
}
uint64_t peer_inbox_bytes(int32_t ranks);
uint64_t peer_turns_bytes();
// Before a peer may write to the inbox.
void clear_peer_inbox(const PeerMemory& inbox, int32_t ranks, const DeviceBuffer& turns, const Stream& stream);

// data [count] of F16, BF16 or F32, 16-byte aligned, at most kMostPeerSumBytes: becomes the sum over ranks.
void peer_sum_cuda(const PeerGroup& group, void* data, uint64_t count, Dtype dtype, const Stream& stream);

// args.delta is this rank's part: the same bits as peer_sum_cuda of it and add_rms_norm_cuda behind, but args.delta is
// left as it is. args.rows must be null; width at most kMostPeerNormWidth.
void peer_sum_norm_cuda(const PeerGroup& group, const AddRmsNormArgs& args, const Stream& stream);

// The same sums with the same bits in two shots (kernels/peer/two_shot_plan.h): for tensors so large that what leaves each
// rank counts more than a second step, of any size. Each rank must own something: at least 512 bytes a rank, and rows of
// which peer_two_shot_takes says so. What args.delta holds behind peer_two_shot_norm_cuda is undefined.
bool peer_two_shot_takes(int32_t ranks, int32_t width);
void peer_two_shot_sum_cuda(const PeerGroup& group, void* data, uint64_t count, Dtype dtype, const Stream& stream);
void peer_two_shot_norm_cuda(const PeerGroup& group, const AddRmsNormArgs& args, const Stream& stream);

// send [bytes] of every rank -> receive [ranks * bytes], by rank. bytes: a multiple of 4, at most kMostPeerGatherBytes;
// 4-byte aligned. send may be receive + rank * bytes.
void peer_gather_cuda(const PeerGroup& group, const void* send, void* receive, uint64_t bytes, const Stream& stream);

}  // namespace lorikeet::kernels
