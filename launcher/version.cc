#include "launcher/version.h"

#include <fmt/format.h>

#include "launcher/commit.h"  // made by the build

namespace lorikeet::launcher {

const char* const kVersion = LORIKEET_VERSION;

std::string version_text() {
  return fmt::format("lorikeet {} (commit {})\nCUDA {}, NCCL {}, CAF {}, {}", kVersion, LORIKEET_COMMIT,
                     LORIKEET_CUDA_VERSION, LORIKEET_NCCL_VERSION, LORIKEET_CAF_VERSION, LORIKEET_COMPILER);
}

}  // namespace lorikeet::launcher
