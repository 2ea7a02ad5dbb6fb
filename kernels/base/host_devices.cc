#include "kernels/base/host_devices.h"

#include <cuda_runtime_api.h>

#include "kernels/base/cuda_check.h"
#include "kernels/base/device.h"

namespace lorikeet::kernels {

Result<std::vector<HostDevice>> host_devices() {
  const Result<int> count = device_count();
  if (!count) return tl::unexpected(count.error());
  std::vector<HostDevice> all;
  for (int device = 0; device < *count; ++device) {
    cudaDeviceProp properties{};
    if (const cudaError_t status = cudaGetDeviceProperties(&properties, device); status != cudaSuccess) {
      return fail("CUDA device {} cannot be used: {}", device, cudaGetErrorString(status));
    }
    HostDevice& one = all.emplace_back();
    one.name = properties.name;
    one.total_bytes = properties.totalGlobalMem;
    for (int other = 0; other < *count; ++other) {
      int reaches = 0, atomics = 0;
      if (other != device) {
        LORIKEET_CHECK_CUDA(cudaDeviceCanAccessPeer(&reaches, device, other));
        LORIKEET_CHECK_CUDA(cudaDeviceGetP2PAttribute(&atomics, cudaDevP2PAttrNativeAtomicSupported, device, other));
      }
      one.reaches.push_back(reaches != 0);
      one.reaches_fully.push_back(reaches != 0 && atomics != 0);
    }
  }
  return all;
}

}  // namespace lorikeet::kernels
