// Default limits of adapters.
#pragma once

#include <cstdint>

namespace lorikeet::model {

inline constexpr int32_t kMaxLoraRank = 512;

}  // namespace lorikeet::model
