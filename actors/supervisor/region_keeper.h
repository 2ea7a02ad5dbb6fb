// The memory that outlives ranks: descriptors that they have handed over, held for their successors. It is never mapped
// here, and no device is touched; a rank that lies costs a bounded number of descriptors, until it or its successor drops
// them or the server ends.
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
  // In place of an older one of that name, which goes in any case. Refuses what no rank hands over: memory of the host that is not what it is
  // said to be or has another size, files as memory of a device, names and sizes past the limits (actors/wire/limits.h), the head's.
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
