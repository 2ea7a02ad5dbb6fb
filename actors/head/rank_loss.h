// Why a group cannot be used any more, as far as the head knows.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lorikeet::actors {

struct RankLoss {
  std::string why;
  bool by_rank = false;        // a rank failed by itself: it was not killed, stopped or cut off
  std::vector<int32_t> ranks;  // that cannot go on; empty: it is not known which, or none
};

}  // namespace lorikeet::actors
