// What is served of an adapter unless somebody says otherwise.
#pragma once

#include <cstdint>

namespace lorikeet::model {

inline constexpr int32_t kMaxLoraRank = 512;

}  // namespace lorikeet::model
