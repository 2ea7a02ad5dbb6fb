#include "kernels/base/polled_event.h"

#include <cuda_runtime_api.h>

#include <chrono>
#include <thread>

#include "kernels/base/cuda_check.h"

namespace lorikeet::kernels {
namespace {

constexpr std::chrono::microseconds kBetweenLooks{20};

}  // namespace

Result<PolledEvent> PolledEvent::make() {
  PolledEvent event;
  const cudaError_t status = cudaEventCreateWithFlags(&event.handle_, cudaEventDisableTiming);
  if (status != cudaSuccess) {
    return fail("a CUDA event cannot be made: {} ({})", cudaGetErrorString(status), cudaGetErrorName(status));
  }
  return event;
}

PolledEvent::~PolledEvent() {
  if (handle_ != nullptr) LORIKEET_CHECK_CUDA(cudaEventDestroy(handle_));
}

void PolledEvent::record(const Stream& stream) const {
  LORIKEET_CHECK_CUDA(cudaEventRecord(handle_, stream.handle()));
}

bool PolledEvent::ready() const {
  const cudaError_t status = cudaEventQuery(handle_);
  if (status == cudaErrorNotReady) return false;
  LORIKEET_CHECK_CUDA(status);
  return true;
}

Result<void> PolledEvent::wait(std::chrono::milliseconds limit) const {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!ready()) {
    if (std::chrono::steady_clock::now() >= deadline) {
      return fail("the GPU has not ended what it was given within {} ms", limit.count());
    }
    std::this_thread::sleep_for(kBetweenLooks);
  }
  return {};
}

}  // namespace lorikeet::kernels
