#include "launcher/device.h"

#ifdef LORIKEET_HAVE_CUDA
#include "kernels/device.h"
#endif

namespace lorikeet::launcher {
namespace {

// The CUDA devices that could be used; an error says why there are none.
Result<int> cuda_devices() {
#ifdef LORIKEET_HAVE_CUDA
  auto count = kernels::device_count();
  if (count && *count == 0) return fail("this host has no CUDA device");
  return count;
#else
  return fail("this build has no CUDA ranks");
#endif
}

}  // namespace

Result<std::string> choose_device(const std::string& wanted) {
  if (wanted == "cpu") return wanted;
  const auto devices = cuda_devices();
  if (wanted == "cuda" && !devices) return fail("--device cuda: {}", devices.error().message);
  return std::string(devices ? "cuda" : "cpu");
}

}  // namespace lorikeet::launcher
