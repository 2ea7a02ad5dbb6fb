// Launches of kernels that begin while the kernel before them ends (programmatic dependent launch). Included by .cu
// files only.
#pragma once

#include <algorithm>

#include "kernels/cuda/async_copy.cuh"

namespace lorikeet::kernels::device {

// Whether the code that runs of `kernel` waits for the kernel before it: code compiled at run time from an earlier
// device's PTX does not.
template <class Kernel>
bool waits_for_previous_kernel(Kernel kernel) {
#ifdef __CUDA_ARCH_LIST__
  constexpr int kArchitectures[] = {__CUDA_ARCH_LIST__};
  if constexpr (*std::min_element(std::begin(kArchitectures), std::end(kArchitectures)) >= 900) return true;
#endif
  cudaFuncAttributes attributes{};
  LORIKEET_CHECK_CUDA(cudaFuncGetAttributes(&attributes, kernel));
  return attributes.ptxVersion >= 90;
}

// Every block of the kernel must call wait_for_previous_kernel before it touches what a kernel may write: so that what
// is queued behind it may rely on all that came before it.
template <class... Parameters, class... Arguments>
void launch_overlapped(void (*kernel)(Parameters...), dim3 grid, unsigned threads, size_t shared_bytes,
                       cudaStream_t stream, Arguments&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = threads;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = waits_for_previous_kernel(kernel) ? 1 : 0;
  LORIKEET_CHECK_CUDA(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...));
}

}  // namespace lorikeet::kernels::device
