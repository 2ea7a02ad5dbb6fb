// Holds the descriptors of the memory that ranks leave to their successors. It is never mapped here, and no device is
// touched. A rank that lies costs a bounded number of descriptors, until it or its successor drops them or the server
// ends.
//
// Threads: any.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "actors/wire/control_message.h"
#include "kernels/base/descriptor.h"
#include "kernels/base/error.h"

namespace lorikeet::actors {

struct HeldRegion {
  RegionDescription what;
  Descriptor memory;
};

class RegionKeeper {
 public:
  // Replaces an older region of that name, which is dropped in any case. Refuses host memory that is not of the kind or size
  // that `what` says, files given as device memory, names and sizes beyond the limits (actors/wire/limits.h), and regions of
  // the head.
  Result<void> hold(int32_t rank, RegionDescription what, Descriptor memory);

  void drop(int32_t rank);
  void drop(int32_t rank, const std::string& name);

  // By name; they stay open as long as the caller has them.
  std::vector<std::shared_ptr<const HeldRegion>> of(int32_t rank) const;

 private:
  using OfRank = std::map<std::string, std::shared_ptr<const HeldRegion>>;

  mutable std::mutex mutex_;  // guards what follows
  std::map<int32_t, OfRank> ranks_;
};

}  // namespace lorikeet::actors
