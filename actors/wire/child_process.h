// What the head and the ranks have in common as children of the supervisor.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "actors/wire/control_channel.h"
#include "actors/wire/control_message.h"
#include "actors/wire/descriptor_reserve.h"
#include "kernels/base/descriptor.h"
#include "kernels/base/error.h"

namespace lorikeet::actors {

// What a rank's predecessor left.
struct InheritedRegion {
  RegionDescription what;
  Descriptor memory;
};

// The child's side of its bond with the supervisor. When the supervisor dies, however it dies, this process ends at once:
// the kernel kills it (PR_SET_PDEATHSIG); should that fail, it ends when it reads the end of the channel.
class ChildProcess {
 public:
  // Takes the inherited channel and reads from it what this process is to be. Errors: not started by a supervisor.
  static Result<std::unique_ptr<ChildProcess>> attach();

  const ChildStart& start() const { return start_; }

  // A rank's connection to the head (actors/wire/caf_connection.h), once.
  Descriptor take_head_connection() { return std::move(head_connection_); }

  // A rank's end of the channel for descriptors (actors/wire/descriptor_channel.h), once; void: there is none.
  // That of a rank of another host has no other end, and it gets chunks.
  Descriptor take_descriptors() { return std::move(descriptors_); }

  // Memory of the rank's predecessor, once.
  std::vector<InheritedRegion> take_regions() { return std::move(regions_); }

  // Threads: any. Fails silently: without a supervisor this process ends anyway.
  void tell(const ChildReport& report, int descriptor = -1);

  // Tells the supervisor why, and ends the process. by_itself: the cause is not that another process is gone, so it may be
  // what this one was computing. Threads: any.
  [[noreturn]] void fail(const std::string& why, bool by_itself = false);

  // Calls on_order for each order and the descriptor that came with it, on a thread of its own; when the channel ends, the
  // process does. Pings to a rank are answered here, since others watch whether its steps get on.
  void listen(std::function<void(ChildOrder, Descriptor)> on_order);

 private:
  explicit ChildProcess(int descriptor) : channel_(descriptor) {}

  ControlChannel channel_;
  ChildStart start_;
  std::optional<DescriptorReserve> reserve_;  // of the head: for the connections to ranks
  Descriptor head_connection_, descriptors_;
  std::vector<InheritedRegion> regions_;
};

}  // namespace lorikeet::actors
