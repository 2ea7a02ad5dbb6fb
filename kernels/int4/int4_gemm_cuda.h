// The device version of y = x W^T with an int4 weight, for any number of tokens.
//
// Up to kInt4DecodeRows tokens go through kernels that read the packed weight once; more go through tensor-core tiles
// for many tokens: Hopper's, or up to kInt4WarpPrefillRows those of any GPU from compute capability 8.0 on, or beyond
// that cuBLASLt's behind an unpacked weight. In the first, a row's result depends neither on m nor on the other rows nor
// on the device: see kernels/int4/base/fragment.cuh for the one order in which products are summed.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/base/device.h"
#include "kernels/base/dtype.h"
#include "kernels/int4/base/decode_shape.h"
#include "kernels/int4/base/gemm_args.h"
#include "kernels/int4/base/packed_weight.h"

namespace lorikeet::kernels {

// What every GPU from compute capability 8.0 on has for a block.
inline constexpr uint64_t kFewestSharedBytes = 99 << 10;

// Products of fewer tokens are not made some tokens at a time.
inline constexpr int32_t kInt4FewestRowsInParts = 1024;

// Owns the scratch memory of the products. Threads: one at a time, on one stream.
class Int4Gemm {
 public:
  // For products of up to max_rows tokens with weights up to max_outputs x max_inputs. Fails where memory runs out, and
  // on devices with less than kFewestSharedBytes.
  static Result<Int4Gemm> make(int32_t max_rows, int32_t max_outputs, int32_t max_inputs);
  // As if the device were one that is described so and offers no more than this one does: what other cards run.
  static Result<Int4Gemm> make(int32_t max_rows, int32_t max_outputs, int32_t max_inputs,
                               const Int4DecodeDevice& device);
  Int4Gemm(Int4Gemm&&) noexcept;
  Int4Gemm& operator=(Int4Gemm&&) noexcept;
  ~Int4Gemm();

  // Queues the product. Up to kInt4DecodeRows tokens it can be captured in a graph; above, the first call for a shape
  // must not be captured, as devices without a kernel of ours for it (kernels/int4/prefill/unpacked_gemm.h) choose an
  // algorithm. `late_x`: the kernel in front waits for other ranks, so that there is time to bring more of the weight
  // before x is there. `of_rows`: args has some rows, more than kInt4DecodeRows, of a product of so many, at least
  // kInt4FewestRowsInParts, and they get the bits that they have there, where takes_parts; 0: it has all.
  void run(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Stream& stream, bool late_x = false,
           int32_t of_rows = 0);

  // Whether products of kInt4FewestRowsInParts tokens and more may be made some rows at a time.
  bool takes_parts() const;

  // Whether the product of m rows takes a NormPrologue; with `lora`, completed by adapters.
  bool takes_norm(const PackedInt4Weight& weight, int32_t m, Dtype dtype, const Int4LoraSize& lora = {});
  // Whether products with m tokens complete their outputs by adapters themselves. Blocks of one token's then wait for
  // each other: no other process may keep some of them off the device.
  bool takes_lora(const PackedInt4Weight& weight, int32_t m, const LoraLinear& linear, int32_t max_rank) const;
  // Where takes_lora: whether a kernel in front of the product makes A x. It takes x from memory: no NormPrologue.
  bool takes_x_for_lora(const PackedInt4Weight& weight, int32_t m, Dtype dtype, const Int4LoraSize& lora);
  // The blocks of such a product.
  int32_t lora_blocks(const PackedInt4Weight& weight, int32_t m, Dtype dtype, const Int4LoraSize& lora);

 private:
  struct Impl;
  explicit Int4Gemm(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lorikeet::kernels
