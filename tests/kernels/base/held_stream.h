// A stream that does nothing of what is queued in it next, until it is let go of.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>

#include "kernels/base/cuda_check.h"
#include "kernels/base/device.h"

namespace lorikeet::kernels {

class HeldStream {
 public:
  explicit HeldStream(const Stream& stream) {
    const auto hold = [](void* released) { static_cast<std::atomic<bool>*>(released)->wait(false); };
    LORIKEET_CHECK_CUDA(cudaLaunchHostFunc(stream.handle(), hold, &released_));
  }
  ~HeldStream() { release(); }
  HeldStream(const HeldStream&) = delete;
  HeldStream& operator=(const HeldStream&) = delete;

  // What uses the flag may still be waking: the stream's work must have ended before this goes.
  void release() {
    released_ = true;
    released_.notify_all();
  }

 private:
  std::atomic<bool> released_{false};
};

}  // namespace lorikeet::kernels
