// What tensor copies bring for an int4 product: x as operand B of Hopper's warpgroups, in boxes of tokens x 64 inputs,
// swizzled, and units of neighbouring tiles. Included by .cu files only.
#pragma once

#include <cuda.h>

#include "kernels/base/cuda_check.h"
#include "kernels/int4/base/gemm_args.h"
#include "kernels/int4/base/packed_weight.h"

namespace lorikeet::kernels::int4 {

inline constexpr int kBoxInputs = 64;       // a row of 128 bytes, what the swizzle spans
inline constexpr int kBoxAlignment = 1024;  // of a box in shared memory

#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ void tensor_copy(uint32_t to, const CUtensorMap* map, int column, int row,
                                            uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
          to),
      "l"(map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}
// Brings the map of copies that will follow.
__device__ __forceinline__ void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
#endif

// The matrix [rows][columns] of `type`, rows `row_bytes` apart, as boxes; zeros behind its ends.
inline CUtensorMap tensor_map(CUtensorMapDataType type, const void* data, uint64_t columns, uint64_t rows,
                              uint64_t row_bytes, uint32_t box_columns, uint32_t box_rows, CUtensorMapSwizzle swizzle) {
  static const auto encode = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult result{};
    LORIKEET_CHECK_CUDA(
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &result));
    CHECK_EQ(result, cudaDriverEntryPointSuccess) << "the driver does not know cuTensorMapEncodeTiled";
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(entry);
  }();
  CUtensorMap map;
  const cuuint64_t sizes[] = {columns, rows};
  const cuuint64_t strides[] = {row_bytes};
  const cuuint32_t box[] = {box_columns, box_rows};
  const cuuint32_t steps[] = {1, 1};
  const CUresult status =
      encode(&map, type, 2, const_cast<void*>(data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  CHECK_EQ(status, CUDA_SUCCESS) << "tensor map of " << rows << "x" << columns << ", rows of " << row_bytes << " bytes";
  return map;
}

// Boxes of `columns` tokens.
inline CUtensorMap map_of_x(const Int4GemmArgs& args, int32_t k, int32_t columns) {
  return tensor_map(args.dtype == Dtype::f16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                    args.x, static_cast<uint64_t>(k), static_cast<uint64_t>(args.m),
                    static_cast<uint64_t>(args.x_stride) * 2, kBoxInputs, static_cast<uint32_t>(columns),
                    CU_TENSOR_MAP_SWIZZLE_128B);
}

inline constexpr int kWeightElement = 8;  // bytes: the largest element, as a box has up to 256 in a row

// Boxes of one unit of `tiles` tiles.
inline CUtensorMap map_of_weight(const PackedInt4Weight& weight, int32_t tiles) {
  const auto unit = static_cast<uint64_t>(weight.unit_bytes());
  const auto units = static_cast<uint64_t>(weight.units);
  return tensor_map(CU_TENSOR_MAP_DATA_TYPE_INT64, weight.data.data(), unit * units / kWeightElement,
                    static_cast<uint64_t>(weight.tiles), unit * units, static_cast<uint32_t>(unit / kWeightElement),
                    static_cast<uint32_t>(tiles), CU_TENSOR_MAP_SWIZZLE_NONE);
}

}  // namespace lorikeet::kernels::int4
