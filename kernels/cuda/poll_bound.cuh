// How long a CTA waits for what another one writes. Included by .cu files only.
//
// CTAs that wait for each other must all be on the device. Where other processes compute there too this is not sure,
// and such kernels are not launched (DeviceProperties::multi_process_service); should it happen all the same, the
// kernel ends with an error, which the host sees, and not never.
#pragma once

#include <cstdint>

namespace lorikeet::kernels::device {

// A look at the memory that the others write takes half a microsecond or more: so many take ten seconds or more.
inline constexpr uint32_t kMostPolls = 20U << 20;

class PollBound {
 public:
  __device__ __forceinline__ void count() {
    if (--left_ == 0) __trap();
  }

 private:
  uint32_t left_ = kMostPolls;
};

}  // namespace lorikeet::kernels::device
