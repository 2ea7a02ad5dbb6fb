// What the kernels of the int4 product take alike. Included by .cu files only.
#pragma once

#include <glog/logging.h>

#include "kernels/base/cuda_check.h"
#include "kernels/int4/base/gemm_args.h"
#include "kernels/int4/base/output.cuh"
#include "kernels/int4/base/packed_weight.h"

namespace lorikeet::kernels::int4 {

inline OutputParams output_params(const PackedInt4Weight& weight, const Int4GemmArgs& args) {
  const bool pairs = reinterpret_cast<uintptr_t>(args.y) % 4 == 0 && args.y_stride % 2 == 0 &&
                     (!weight.paired || weight.n / 2 % 2 == 0);
  return {args.y, args.bias, args.y_stride, weight.n, weight.scale_factor, weight.paired, args.silu_mul, pairs};
}

template <class Params>
Params common_params(const PackedInt4Weight& weight, const Int4GemmArgs& args) {
  Params p{};
  p.weight = weight.data.as<uint8_t>();
  p.x = args.x;
  p.x_stride = args.x_stride;
  p.out = output_params(weight, args);
  p.m = args.m;
  p.k = weight.k;
  p.tiles = weight.tiles;
  p.units = weight.units;
  return p;
}

// Lets the blocks of a kernel take so much shared memory, of a multiprocessor that has as much of it as it can.
inline void allow_shared_memory(const void* kernel, uint64_t bytes) {
  LORIKEET_CHECK_CUDA(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
  LORIKEET_CHECK_CUDA(
      cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared));
}

// How many clusters of blocks run together. They must find room in one group of processors each, so not every processor
// may find a cluster.
template <class Kernel>
int32_t clusters_at_once(Kernel kernel, int32_t cluster, int32_t threads, int32_t multiprocessors,
                         uint64_t shared_bytes) {
  cudaLaunchConfig_t config{};
  config.gridDim = static_cast<unsigned>(multiprocessors / cluster * cluster);
  config.blockDim = static_cast<unsigned>(threads);
  config.dynamicSmemBytes = shared_bytes;
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(cluster);
  attribute.val.clusterDim.y = 1;
  attribute.val.clusterDim.z = 1;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int together = 0;
  LORIKEET_CHECK_CUDA(cudaOccupancyMaxActiveClusters(&together, kernel, &config));
  return together;
}

}  // namespace lorikeet::kernels::int4
