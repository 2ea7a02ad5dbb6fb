#include "launcher/device.h"

namespace lorikeet::launcher {

Result<std::string> choose_device(const std::string& wanted) {
  if (wanted == "cuda") return fail("--device cuda: this build has no CUDA ranks");
  return std::string("cpu");
}

}  // namespace lorikeet::launcher
