// The int4 product for many tokens in one kernel, on devices that have Hopper's warpgroup steps. Used by
// kernels/int4/int4_gemm_cuda.h, and by benchmarks that compare its shapes.
#pragma once

#include <vector>

#include "kernels/base/device.h"
#include "kernels/int4/base/gemm_args.h"
#include "kernels/int4/base/packed_weight.h"
#include "kernels/int4/prefill/prefill_walk.h"

namespace lorikeet::kernels {

// Products of so many tokens and more are made without sums that clusters share, so that a row's bits do not depend on
// where its area lies among the others.
inline constexpr int32_t kInt4WholeAreaRows = 1024;

// Whether the kernel was compiled for this device.
bool int4_prefill_available();

// An area is 256 outputs of `columns` tokens, which a cluster of one block or two makes. Each cluster makes `alone` of
// them, and then the clusters share out the inputs of those that are left (kernels/int4/prefill/prefill_walk.h).
struct Int4PrefillShape {
  int32_t columns = 128;
  int32_t cluster = 1;  // blocks
  int32_t clusters = 1;
  int32_t alone = 1;
  bool shares = false;  // whether any are left
};

// All that come into question for m tokens on so many multiprocessors, and the one that should take the least time, by
// costs as they were seen on an H200. There are no more blocks than multiprocessors.
std::vector<Int4PrefillShape> int4_prefill_shapes(const PackedInt4Weight& weight, int32_t m, int32_t multiprocessors);
Int4PrefillShape shape_int4_prefill(const PackedInt4Weight& weight, int32_t m, int32_t multiprocessors);

// What the clusters make of m tokens, up to as many as the shape is for.
int4::PrefillDivision int4_prefill_division(const PackedInt4Weight& weight, int32_t m, const Int4PrefillShape& shape);

// Device memory in which clusters leave each other sums. Products of one stream may share it.
struct Int4PrefillScratch {
  DeviceBuffer sums;
  DeviceBuffer arrived;  // int [multiprocessors], 0 between products

  // Room for every shape on so many multiprocessors.
  static Result<Int4PrefillScratch> make(int32_t multiprocessors);
};

// Any m > 0; `shape` is one for the same weight and at least m tokens. x is not permuted: where the weight has a
// permutation, args.x must be in the order of the stored inputs. A row's result does not depend on the other rows, but
// on the shape and, where that shares areas, on m, by which the sums are divided.
void int4_prefill(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Int4PrefillShape& shape,
                  const Int4PrefillScratch& scratch, const Stream& stream);

}  // namespace lorikeet::kernels
