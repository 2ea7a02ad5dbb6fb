#include "kernels/int4/decode/int4_decode.h"

#include <algorithm>

#include "kernels/int4/base/launch.cuh"
#include "kernels/int4/decode/lora_parts.h"
#include "kernels/int4/decode/sizes.cuh"
#include "kernels/int4/stream/int4_stream.h"

namespace lorikeet::kernels {
namespace {

constexpr int32_t kFirstUnits = 2;  // of a warp's ring that are asked for before x, where x comes soon

}  // namespace

void int4_decode(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Int4DecodeShape& shape,
                 const Stream& stream, bool beside, bool late_x) {
  if (shape.streams_x) return int4_stream(weight, args, shape, stream);
  const int4::KeptSizes sizes(weight, args.m, shape);
  auto p = int4::common_params<int4::DecodeParams>(weight, args);
  CHECK(args.norm.residual == nullptr || (args.m <= kNormRows && int4_decode_takes_norm(weight, shape)));
  p.norm = args.norm;
  p.permutation = weight.permutation.as<int32_t>();
  const int32_t groups = shape.blocks / shape.cluster;
  p.cluster_log2 = shape.cluster - 1;  // 1 or 2
  p.tiles = weight.tiles / groups;
  p.groups_with_more = weight.tiles % groups;
  p.stages = shape.depth;
  p.chunk = shape.chunk;
  p.first_stages = late_x ? shape.depth : std::clamp(kFirstUnits / shape.chunk, 1, shape.depth);
  p.x_row_bytes = sizes.x_row_bytes;
  p.parts_offset = static_cast<int32_t>(sizes.x);
  p.ring_offset = static_cast<int32_t>(sizes.ring_offset());
  p.barriers_offset = static_cast<int32_t>(sizes.barriers_offset());
  p.squares_offset = static_cast<int32_t>(sizes.squares_offset());
  CHECK_EQ(args.lora != nullptr, shape.lora.projections > 0);
  if (args.lora != nullptr) {
    CHECK_EQ(args.lora->linear.projections, shape.lora.projections);
    CHECK_LE(args.lora->rows.max_rank, shape.lora.max_rank);
    if (int4::decode_lora(shape) == int4::DecodeLora::of_tokens) {
      CHECK(args.norm.residual == nullptr);
      int4::make_lora_parts(args, stream);
    }
    p.lora = int4::decode_lora_params(*args.lora, args.m);
    p.lora.offset = static_cast<int32_t>(sizes.lora_offset());
    p.lora.barriers_offset = p.squares_offset - int4::kLoraBarriers * static_cast<int32_t>(sizeof(uint64_t));
    p.lora.slices_offset = static_cast<int32_t>(sizes.slices_offset());
    p.lora.pieces_offset = static_cast<int32_t>(sizes.pieces_offset());
    p.lora.pieces = shape.lora_pieces;
    p.lora.staged_rank = shape.one_token_rank;
    if (shape.one_token_rank > 0) p.lora.helpers = int4::KeptSizes::helpers(weight, shape);
  }
  device::LaunchShape launch;
  launch.blocks = static_cast<unsigned>(shape.blocks);
  launch.overlap = shape.overlap;
  launch.threads = static_cast<unsigned>(int4::kDecodeThreads);
  launch.shared_bytes = beside ? shape.bytes_beside : shape.bytes;
  launch.cluster = static_cast<unsigned>(shape.cluster);
  const int4::DecodeKernel kernel = int4::decode_kernel(weight, args.dtype, int4::decode_lora(shape));
  int4::allow_shared_memory(reinterpret_cast<const void*>(kernel), std::max(shape.bytes, shape.bytes_beside));
  device::launch(kernel, launch, stream.handle(), p);
}

}  // namespace lorikeet::kernels
