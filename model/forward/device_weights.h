// The base weights of one rank in device memory.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <variant>
#include <vector>

#include "kernels/base/device.h"
#include "kernels/base/dtype.h"
#include "kernels/int4/int4_gemm_cuda.h"
#include "model/checkpoint/weights.h"

namespace lorikeet::model {

// W [n, k] of y = x W^T, row-major, in the type of the activations.
struct DeviceDense {
  int32_t n = 0;
  int32_t k = 0;
  kernels::DeviceBuffer data;
};

// A product whose outputs begin at `first_output` of the linear's.
struct DeviceProduct {
  std::variant<kernels::PackedInt4Weight, DeviceDense> weight;
  int32_t first_output = 0;
};

// One projection, or neighbouring ones that take the same x: their outputs follow each other. They are one product
// where they are alike, and else several.
struct DeviceLinear {
  int32_t inputs = 0;
  std::vector<int32_t> outputs;  // of each projection
  std::vector<DeviceProduct> products;

  int32_t all_outputs() const;
  // Whether the product itself can make silu(gate) * up.
  bool fuses_silu() const;
};

struct DeviceLayer {
  kernels::DeviceBuffer input_norm, post_attention_norm;  // float [hidden]
  kernels::DeviceBuffer q_norm, k_norm;                   // float [head_dim] or empty
  kernels::DeviceBuffer qkv_bias;                         // float, of q, k and v, or empty
  DeviceLinear qkv, o, gate_up, down;

  const DeviceLinear& of(Projection p) const;
};

struct DeviceWeights {
  kernels::DeviceBuffer embedding;       // [vocab, hidden]
  kernels::DeviceBuffer lm_head_memory;  // empty where lm_head is a part of the embedding
  const void* lm_head = nullptr;         // [this rank's vocabulary, hidden]
  kernels::DeviceBuffer final_norm;      // float [hidden]
  std::vector<DeviceLayer> layers;

  uint64_t bytes() const;
};

// Loads from `source`, a layer at a time on each of `threads` threads, onto the calling thread's device.
// progress(done, total) is called after every layer, never two at once. Fails with the source's reason, where memory
// runs out, and where sizes are not multiples of 8.
Result<DeviceWeights> load_device_weights(const WeightSource& source, const ShardPlan& plan, int rank,
                                          kernels::Dtype dtype, const std::function<void(int, int)>& progress,
                                          int threads);

// Random weights of sensible size, made on the device: for measuring without a checkpoint. Int4 weights are symmetric,
// in groups of 128. What the ranks share is alike on all of them.
Result<DeviceWeights> random_device_weights(const ShardPlan& plan, int rank, kernels::Dtype dtype, uint64_t seed);

}  // namespace lorikeet::model
