#include "bench/model/step_floors.h"

#include "bench/kernels/gpu_floors.cuh"
#include "kernels/cuda/library_gemm.h"

namespace lorikeet::bench {

StepFloors measure_step_floors(const kernels::Stream& stream) {
  StepFloors floors;
  floors.read = kernels::bench::measure_memory(stream).read;
  kernels::LibraryGemm library = kernels::bench::must(kernels::LibraryGemm::make());
  constexpr int32_t kSize = 8192;
  const auto x = kernels::bench::random_halves(int64_t{kSize} * kSize, 1, stream);
  const auto weight = kernels::bench::random_halves(int64_t{kSize} * kSize, 2, stream);
  const auto out = kernels::bench::allocate(uint64_t{2} * kSize * kSize);
  kernels::LibraryGemmArgs args;
  args.x = x.data();
  args.x_stride = args.out_stride = args.m = args.n = args.k = kSize;
  args.weight = weight.data();
  args.out = out.data();
  floors.flops =
      2.0 * kSize * kSize * kSize / kernels::bench::microseconds(stream, [&] { library.run(args, stream); }) * 1e6;
  return floors;
}

}  // namespace lorikeet::bench
