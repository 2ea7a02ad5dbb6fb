#include "kernels/lora/lora_cuda.h"

#include <algorithm>
#include <numeric>
#include <type_traits>

#include "kernels/base/cuda_check.h"
#include "kernels/base/rounding.h"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/lora/lora_expand.cuh"
#include "kernels/lora/lora_shrink.cuh"

namespace lorikeet::kernels {
namespace {

int32_t stored_parts(int32_t rows, int32_t inputs) {
  return rows <= kLoraDecodeRows ? lora::input_parts(inputs) : 1;
}

bool vectors_possible(const LoraArgs& args, const lora::ExpandParams& p) {
  const auto aligned = [](const void* pointer, int64_t stride, size_t element) {
    return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && static_cast<size_t>(stride) * element % 16 == 0;
  };
  bool possible = aligned(args.y, args.y_stride, size_of(args.y_dtype));
  if (args.silu_out != nullptr) possible &= aligned(args.silu_out, args.silu_stride, size_of(args.dtype));
  for (int i = 0; i < args.linear.projections; i++) possible &= p.columns[i] % lora::kLaneOutputs == 0;
  return possible;
}

// Of the kernels for activations of type T.
template <class T>
void allow_shared_memory() {
  const auto allow = [](auto kernel, int bytes) {
    LORIKEET_CHECK_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  };
  allow(lora::shrink_parts<T>, lora::kPartsSharedBytes);
  allow(lora::shrink<T>, lora::kShrinkSharedBytes);
  allow(lora::expand<T, T, false>, lora::ExpandRing<T, false>::kSharedBytes);
  allow(lora::expand<T, T, true>, lora::ExpandRing<T, true>::kSharedBytes);
  allow(lora::expand<T, float, false>, lora::ExpandRing<float, false>::kSharedBytes);
}

}  // namespace

Result<LoraProducts> LoraProducts::make(int32_t max_rows, int32_t max_inputs, int32_t max_rank) {
  LoraProducts products;
  products.max_rows_ = max_rows;
  products.max_inputs_ = max_inputs;
  products.max_rank_ = max_rank;
  products.multiprocessors_ = device_properties().multiprocessors;
  uint64_t floats = 0;
  for (const int32_t rows : {std::min(max_rows, kLoraDecodeRows), max_rows}) {
    floats = std::max(floats, static_cast<uint64_t>(rows) * static_cast<uint64_t>(stored_parts(rows, max_inputs)) *
                                  kMaxFusedLora * static_cast<uint64_t>(lora::padded_rank(max_rank)));
  }
  Result<DeviceBuffer> scratch = DeviceBuffer::allocate(floats * sizeof(float), "the scratch of the LoRA products");
  if (!scratch) return tl::unexpected(scratch.error());
  products.scratch_ = std::move(*scratch);
  allow_shared_memory<__half>();
  allow_shared_memory<__nv_bfloat16>();
  // Code compiled at run time from an earlier device's PTX does not wait for the kernel in front of it.
  cudaFuncAttributes attributes{};
  LORIKEET_CHECK_CUDA(cudaFuncGetAttributes(&attributes, lora::shrink<__half>));
  products.overlap_ = attributes.ptxVersion >= 90;
  return products;
}

void LoraProducts::shrink(const LoraArgs& args, const Stream& stream) {
  const int32_t rows = args.rows.rows;
  if (rows == 0) return;
  CHECK_LE(rows, max_rows_);
  CHECK_LE(args.linear.inputs, max_inputs_);
  CHECK_LE(args.rows.max_rank, max_rank_);
  CHECK_EQ(args.linear.inputs % 8, 0);
  CHECK_EQ(args.x_stride % 8, 0);
  CHECK_GT(args.linear.projections, 0);
  CHECK_LE(args.linear.projections, kMaxFusedLora);
  lora::ShrinkParams p{};
  p.entries = args.table.entries + args.linear.first_entry;
  p.slot_stride = args.table.slot_stride;
  p.counts = args.rows.counts;
  p.units = args.rows.units;
  p.order = args.rows.order;
  p.x = args.x;
  p.x_stride = args.x_stride;
  p.v = scratch_.as<float>();
  p.rank_stride = lora::padded_rank(max_rank_);
  p.part_stride = static_cast<int64_t>(rows) * args.linear.projections * p.rank_stride;
  p.inputs = args.linear.inputs;
  p.projections = args.linear.projections;
  p.parts = lora::input_parts(args.linear.inputs);
  p.x_done = args.x_done;
  p.x_blocks = static_cast<uint32_t>(args.x_blocks);
  const int64_t units = static_cast<int64_t>(rows) * divide_up(args.rows.max_rank, LoraRowPlan::unit_ranks(rows));
  const int64_t items = units * p.projections * stored_parts(rows, p.inputs);
  const bool few = rows <= kLoraDecodeRows;
  device::LaunchShape shape;
  shape.blocks = static_cast<unsigned>(
      std::min<int64_t>(items, multiprocessors_ * (few ? lora::kPartsBlocks : lora::kShrinkBlocks)));
  shape.threads = lora::kShrinkThreads;
  shape.shared_bytes = few ? lora::kPartsSharedBytes : lora::kShrinkSharedBytes;
  shape.overlap = overlap_;
  with_activation_type(args.dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    device::launch(few ? lora::shrink_parts<T> : lora::shrink<T>, shape, stream.handle(), p);
  });
}

int32_t LoraProducts::expand(const LoraArgs& args, const Stream& stream) {
  const int32_t rows = args.rows.rows;
  if (rows == 0) return 0;
  const LoraLinear& linear = args.linear;
  const bool silu = args.silu_out != nullptr;
  lora::ExpandParams p{};
  p.entries = args.table.entries + linear.first_entry;
  p.slot_stride = args.table.slot_stride;
  p.counts = args.rows.counts;
  p.tiles = args.rows.tiles;
  p.order = args.rows.order;
  p.v = scratch_.as<float>();
  p.rank_stride = lora::padded_rank(max_rank_);
  p.part_stride = static_cast<int64_t>(rows) * linear.projections * p.rank_stride;
  p.parts = stored_parts(rows, linear.inputs);
  p.projections = linear.projections;
  for (int i = 0, column = 0; i < linear.projections; i++) {
    p.outputs[i] = linear.outputs[static_cast<size_t>(i)];
    p.columns[i] = column;
    column += p.outputs[i];
    p.output_tiles[i] = lora::output_tiles(p.outputs[i]);
  }
  if (silu) {
    CHECK_EQ(linear.projections, 2);
    CHECK_EQ(linear.outputs[0], linear.outputs[1]);
    CHECK(args.add);
    CHECK(args.y_dtype == args.dtype);
    p.output_tiles[1] = 0;
  }
  const int64_t output_tiles = std::accumulate(p.output_tiles, p.output_tiles + kMaxFusedLora, int64_t{0});
  if (output_tiles == 0) return 0;
  p.y = args.y;
  p.y_stride = args.y_stride;
  p.silu_out = args.silu_out;
  p.silu_stride = args.silu_stride;
  p.add = args.add;
  p.done = args.done;
  p.vectors = vectors_possible(args, p);
  device::LaunchShape shape;
  shape.threads = lora::kExpandThreads;
  shape.overlap = overlap_;
  with_activation_type(args.dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    const auto queue = [&]<class Y, bool kSilu>(std::type_identity<Y>, std::bool_constant<kSilu>) {
      using Ring = lora::ExpandRing<Y, kSilu>;
      shape.shared_bytes = Ring::kSharedBytes;
      shape.blocks = static_cast<unsigned>(std::min<int64_t>(
          (rows * output_tiles + lora::kExpandWarps - 1) / lora::kExpandWarps, multiprocessors_ * Ring::kBlocks));
      device::launch(lora::expand<T, Y, kSilu>, shape, stream.handle(), p);
    };
    if (args.y_dtype == Dtype::f32) return queue(std::type_identity<float>{}, std::false_type{});
    CHECK(args.y_dtype == args.dtype);
    silu ? queue(std::type_identity<T>{}, std::true_type{}) : queue(std::type_identity<T>{}, std::false_type{});
  });
  return static_cast<int32_t>(shape.blocks);
}

}  // namespace lorikeet::kernels
