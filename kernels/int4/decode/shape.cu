#include "kernels/int4/decode/int4_decode.h"

#include <algorithm>

#include "kernels/base/cuda_check.h"
#include "kernels/int4/base/launch.cuh"
#include "kernels/int4/decode/sizes.cuh"
#include "kernels/int4/stream/int4_stream.h"

namespace lorikeet::kernels {
namespace {

using int4::decode_lora;
using int4::KeptSizes;
using int4::kPartsOfK;
using int4::kUnitInputs;

constexpr int32_t kFewestStages = 2;
constexpr int32_t kChunk = 2;       // units of a stage of a warp's ring
constexpr int32_t kLongChunk = 4;   // likewise, where few warps have long parts of k
constexpr int32_t kLongRings = 80;  // units of all rings of a block with such stages
constexpr int32_t kRing = 4;        // units of a warp's ring: what is on its way delays all that is asked for behind it
constexpr int32_t kPiecesStep = 8;  // of an adapter's B that a block keeps
constexpr int32_t kMostPieces = 512;
constexpr int32_t kStagedRanks = 16;        // of one token's B and A: what they have room for grows in such steps
constexpr uint64_t kReserved = 1024;        // of a processor's shared memory, that every block costs besides its own
constexpr uint64_t kBesideParts = 4 << 10;  // what is left of it to the kernel that makes A x of the next product
constexpr uint64_t kBesideAttention = 132 << 10;  // so much leaves room to a CTA of the decode attention (97 kB)
constexpr uint64_t kMostKept = 128 << 10;  // bytes of x: to bring more to every block takes longer than to stream it

// What two blocks of a processor may take each.
uint64_t half_of_processor(uint64_t limit) {
  return (limit + kReserved) / 2;
}

// Whether a block of the next product that is no larger finds room beside one of this.
bool leaves_room(const PackedInt4Weight& weight, int32_t m, uint64_t limit, const Int4DecodeShape& shape) {
  return m == 1 && KeptSizes(weight, m, shape).total() <= half_of_processor(limit);
}

// One token's LoRA by the warps that stream, where that leaves room for a block of the next product: for ranks as high
// as there is room for.
bool take_one_token(const PackedInt4Weight& weight, int32_t m, uint64_t limit, Int4DecodeShape& shape) {
  if (m > 1 || shape.cluster == 1) return false;
  Int4DecodeShape larger = shape;
  larger.lora_pieces = 0;
  while (larger.one_token_rank < shape.lora.max_rank) {
    larger.one_token_rank += kStagedRanks;
    if (KeptSizes(weight, m, larger).total() + 2 * kReserved > half_of_processor(limit)) break;
    shape = larger;
  }
  return shape.one_token_rank > 0;
}

// Up to `limit`, or to what lets the attention begin beside.
void keep_more_pieces(const PackedInt4Weight& weight, int32_t m, uint64_t limit, Int4DecodeShape& shape) {
  if (KeptSizes(weight, m, shape).total() <= kBesideAttention) limit = std::min(limit, kBesideAttention);
  while (shape.lora_pieces < kMostPieces) {
    Int4DecodeShape larger = shape;
    larger.lora_pieces += kPiecesStep;
    if (KeptSizes(weight, m, larger).total() > limit) return;
    shape = larger;
  }
}

// Whether each warp has so much to stream, and the block so few warps that do, that it takes more at a time.
bool takes_long_chunks(const PackedInt4Weight& weight, int32_t m, const Int4DecodeShape& shape) {
  return weight.units / kPartsOfK >= 4 * kLongChunk &&
         KeptSizes(weight, m, shape).workers * kFewestStages * kLongChunk <= kLongRings;
}

// The shape with stages of shape.chunk units, of so many stages or fewer; depth 0 where it finds no room in `limit`
// bytes.
Int4DecodeShape with_stages(const PackedInt4Weight& weight, int32_t m, Int4DecodeShape shape, int32_t depth,
                            uint64_t limit) {
  if (shape.lora_pieces > 0 && m > 1) limit -= kBesideParts;
  for (shape.depth = depth; shape.depth >= kFewestStages; shape.depth--) {
    if (KeptSizes(weight, m, shape).total() > limit) continue;
    if (shape.lora_pieces > 0 && !take_one_token(weight, m, limit, shape)) keep_more_pieces(weight, m, limit, shape);
    return shape;
  }
  shape.depth = 0;
  return shape;
}

// The shape of blocks that keep x, of up to `groups` clusters; depth 0 where it finds no room in `limit` bytes.
Int4DecodeShape kept_shape(const PackedInt4Weight& weight, int32_t m, const Int4DecodeWish& wish, int32_t cluster,
                           int32_t groups, uint64_t limit) {
  Int4DecodeShape shape;
  shape.cluster = cluster;
  shape.blocks = cluster * std::min(groups, weight.tiles);
  shape.lora = wish.lora;
  shape.lora_pieces = wish.lora.projections > 0 ? kPiecesStep : 0;
  shape.depth = 0;
  if (m > int4::kDecodeColumns) return shape;
  if (wish.chunk == 0 && wish.depth == 0 && takes_long_chunks(weight, m, shape)) {
    shape.chunk = kLongChunk;
    const Int4DecodeShape longer = with_stages(weight, m, shape, kFewestStages, limit);
    if (longer.depth > 0 && (m > 1 || leaves_room(weight, m, limit, longer))) return longer;
  }
  for (shape.chunk = wish.chunk > 0 ? wish.chunk : kChunk; shape.chunk > 0; shape.chunk /= 2) {
    const Int4DecodeShape found =
        with_stages(weight, m, shape, wish.depth > 0 ? wish.depth : kRing / shape.chunk, limit);
    if (found.depth > 0) return found;
  }
  shape.depth = 0;
  return shape;
}

// How much of a processor's shared memory a block takes.
void choose_bytes(const PackedInt4Weight& weight, int32_t m, const Int4DecodeDevice& device, Int4DecodeShape& shape) {
  const uint64_t half = half_of_processor(device.shared_bytes_per_block);
  const uint64_t needed = KeptSizes(weight, m, shape).total();
  shape.leaves_room = leaves_room(weight, m, device.shared_bytes_per_block, shape);
  shape.bytes = std::max(needed, half);
  shape.bytes_beside = shape.leaves_room && needed + 2 * kReserved <= half ? needed : shape.bytes;
}

// Blocks in pairs need clusters and something to do for both.
int32_t kept_cluster(const PackedInt4Weight& weight, const Int4DecodeWish& wish, const Int4DecodeDevice& device) {
  return device.clusters && wish.cluster != 1 && weight.units >= kPartsOfK ? int4::kDecodeCluster : 1;
}

Int4DecodeShape kept_shape(const PackedInt4Weight& weight, int32_t m, const Int4DecodeWish& wish,
                           const Int4DecodeDevice& device) {
  const int32_t cluster = kept_cluster(weight, wish, device);
  const int32_t groups = cluster > 1 ? device.pairs : device.multiprocessors;
  return kept_shape(weight, m, wish, cluster, groups, device.shared_bytes_per_block);
}

bool keeps_x(const PackedInt4Weight& weight, int32_t m, const Int4DecodeWish& wish, const Int4DecodeShape& kept) {
  return wish.x == Int4DecodeWish::X::kept ||
         (wish.x == Int4DecodeWish::X::any && kept.depth > 0 && KeptSizes(weight, m, kept).x <= kMostKept);
}

}  // namespace

Int4DecodeDevice Int4DecodeDevice::current() {
  const DeviceProperties properties = device_properties();
  Int4DecodeDevice device;
  device.multiprocessors = properties.multiprocessors;
  device.shared_bytes_per_block = properties.shared_bytes_per_block;
  // A kernel compiled at run time from an earlier device's PTX runs its path, not this device's.
  const int4::DecodeKernel kernel = int4::decode_kernel<__half, int4::DecodeLora::none>(kUnitInputs, false);
  cudaFuncAttributes attributes{};
  LORIKEET_CHECK_CUDA(cudaFuncGetAttributes(&attributes, kernel));
  device.clusters = attributes.ptxVersion >= 90;
  device.groups = int4_group_stream_available();
  if (device.clusters) {
    const int32_t threads = int4::kDecodeThreads;
    const uint64_t bytes = device.shared_bytes_per_block;
    int4::allow_shared_memory(reinterpret_cast<const void*>(kernel), bytes);
    device.pairs = int4::clusters_at_once(kernel, int4::kDecodeCluster, threads, device.multiprocessors, bytes);
    device.quads = int4_stream_clusters(device);
  }
  return device;
}

bool int4_decode_fits(const PackedInt4Weight& weight, int32_t m, const Int4DecodeWish& wish,
                      const Int4DecodeDevice& device) {
  if (wish.x == Int4DecodeWish::X::kept) {
    return (wish.cluster <= 1 || device.clusters) && kept_shape(weight, m, wish, device).depth > 0;
  }
  return int4_stream_fits(wish, device);
}

bool int4_decode_takes_lora(const PackedInt4Weight& weight, int32_t m, const LoraLinear& linear, int32_t max_rank,
                            const Int4DecodeDevice& device) {
  Int4DecodeWish wish;
  wish.lora = {linear.projections, max_rank};
  for (int32_t i = 0; !weight.paired && i + 1 < linear.projections; i++) {
    if (linear.outputs[static_cast<size_t>(i)] % 8 != 0) return false;  // half a tile belongs to one projection
  }
  // Adapters take the inputs in their own order.
  return weight.permutation.bytes() == 0 && max_rank <= kMostFusedRank && linear.inputs <= kMostFusedInputs &&
         keeps_x(weight, m, wish, kept_shape(weight, m, wish, device));
}

Int4DecodeShape shape_int4_decode(const PackedInt4Weight& weight, int32_t m, Dtype dtype, const Int4DecodeWish& wish,
                                  const Int4DecodeDevice& device) {
  CHECK_GT(m, 0);
  CHECK_LE(m, kInt4DecodeRows);
  Int4DecodeShape shape = kept_shape(weight, m, wish, device);
  if (keeps_x(weight, m, wish, shape)) {
    CHECK_GT(shape.depth, 0) << "x of " << m << " tokens does not fit shared memory";
    choose_bytes(weight, m, device, shape);
  } else {
    shape = shape_int4_stream(weight, m, dtype, wish, device);
  }
  shape.overlap = wish.overlap && device.clusters;
  return shape;
}

bool int4_decode_takes_norm(const PackedInt4Weight& weight, const Int4DecodeShape& shape) {
  constexpr int32_t kColumns = device::kNormThreads * device::kNormVector * int4::kNormVectors;
  const bool x_from_memory = decode_lora(shape) == int4::DecodeLora::of_tokens;
  return !shape.streams_x && !x_from_memory && weight.permutation.bytes() == 0 && weight.k == weight.x_size &&
         weight.k == weight.units * kUnitInputs && weight.k <= kColumns;
}

}  // namespace lorikeet::kernels
