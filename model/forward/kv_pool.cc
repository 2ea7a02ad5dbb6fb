#include "model/forward/kv_pool.h"

#include <algorithm>
#include <utility>

#include "kernels/base/borrowed_buffer.h"
#include "kernels/peer/peer_memory.h"

namespace lorikeet::model {

uint64_t KvPool::block_bytes(const ShardPlan& plan, int rank, const CudaModelOptions& options) {
  return plan.kv_bytes_per_position(rank, kernels::size_of(options.kv_dtype)) *
         static_cast<uint64_t>(options.block_size);
}

Result<KvPool> KvPool::make(const ShardPlan& plan, int rank, const CudaModelOptions& options, int32_t num_blocks,
                            KvMemory given) {
  if (num_blocks < 1) return fail("the KV cache has no blocks");
  if (int64_t{num_blocks} * options.block_size > INT32_MAX) {
    return fail("{} KV blocks of {} positions: more than 2^31 positions", num_blocks, options.block_size);
  }
  KvPool pool;
  const uint64_t bytes = block_bytes(plan, rank, options) * static_cast<uint64_t>(num_blocks);
  if (given.memory != nullptr) {
    unsigned char* const data = given.memory->data();
    pool.memory_ = kernels::borrowed_buffer(data, bytes, std::move(given.memory));
  } else {
    auto memory = kernels::DeviceBuffer::allocate(bytes, "the KV cache");
    if (!memory) return tl::unexpected(memory.error());
    pool.memory_ = *std::move(memory);
  }
  if (!given.holds_kv) {
    auto stream = kernels::Stream::make();
    if (!stream) return tl::unexpected(stream.error());
    kernels::fill_bytes(pool.memory_.data(), 0, bytes, *stream);
    stream->synchronize();
  }
  pool.layers_ = layers_in(pool.memory_.data(), plan, rank, options, num_blocks);
  return pool;
}

std::vector<kernels::KvCacheLayer> KvPool::layers_in(void* memory, const ShardPlan& plan, int rank,
                                                     const CudaModelOptions& options, int32_t num_blocks) {
  const auto positions = static_cast<uint64_t>(num_blocks) * static_cast<uint64_t>(options.block_size);
  const auto heads = static_cast<uint64_t>(plan.shard(rank).kv_heads.size());
  const uint64_t elements =
      positions * heads * static_cast<uint64_t>(plan.config().head_dim) * kernels::size_of(options.kv_dtype);
  const uint64_t scales = options.kv_dtype == kernels::KvDtype::f8_e4m3 ? positions * heads * sizeof(float) : 0;
  auto* at = static_cast<unsigned char*>(memory);
  std::vector<kernels::KvCacheLayer> layers;
  for (int32_t i = 0; i < plan.config().num_layers; ++i, at += 2 * (elements + scales)) {
    kernels::KvCacheLayer layer;
    layer.keys = at;
    layer.values = at + elements;
    layer.dtype = options.kv_dtype;
    layer.kv_heads = plan.shard(rank).kv_heads.size();
    layer.block_size = options.block_size;
    layer.head_dim = plan.config().head_dim;
    if (scales > 0) {
      layer.key_scales = reinterpret_cast<float*>(at + 2 * elements);
      layer.value_scales = reinterpret_cast<float*>(at + 2 * elements + scales);
    }
    layers.push_back(layer);
  }
  return layers;
}

Result<uint64_t> kv_cache_budget(const kernels::DeviceMemory& memory, uint64_t device_bytes, double utilization) {
  constexpr uint64_t kLibraries = 768ULL << 20;  // the CUDA context, code of the kernels, graphs
  constexpr double kMiB = 1 << 20;
  const auto share = static_cast<uint64_t>(static_cast<double>(memory.total_bytes) * utilization);
  const uint64_t taken = device_bytes + kLibraries;
  if (share <= taken) {
    return fail(
        "nothing is left for the KV cache: {:.2f} of the GPU's {:.0f} MiB are {:.0f} MiB; weights and workspaces "
        "take {:.0f} MiB, libraries {:.0f} MiB",
        utilization, static_cast<double>(memory.total_bytes) / kMiB, static_cast<double>(share) / kMiB,
        static_cast<double>(device_bytes) / kMiB, static_cast<double>(kLibraries) / kMiB);
  }
  const uint64_t free_bytes = memory.free_bytes - std::min(memory.free_bytes, kLibraries / 2);
  const uint64_t budget = std::min(share - taken, free_bytes);
  if (budget == 0) {
    return fail("nothing is left for the KV cache: {:.0f} of the GPU's {:.0f} MiB are free",
                static_cast<double>(memory.free_bytes) / kMiB, static_cast<double>(memory.total_bytes) / kMiB);
  }
  return budget;
}

}  // namespace lorikeet::model
