// What the kernels of the int4 product for few tokens take alike. Included by .cu files only.
#pragma once

#include "kernels/int4_gemm_cuda.h"
#include "kernels/int4_output.cuh"

namespace lorikeet::kernels::int4 {

template <class Params>
Params common_params(const PackedInt4Weight& weight, const Int4GemmArgs& args) {
  Params p{};
  p.weight = weight.data.as<uint8_t>();
  p.x = args.x;
  p.x_stride = args.x_stride;
  p.out = {args.y, args.bias, args.y_stride, weight.n, weight.scale_factor, weight.paired, args.silu_mul};
  p.m = args.m;
  p.k = weight.k;
  p.tiles = weight.tiles;
  p.units = weight.units;
  return p;
}

}  // namespace lorikeet::kernels::int4
