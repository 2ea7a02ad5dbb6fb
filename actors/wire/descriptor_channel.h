// The channel by which the head hands ranks of its host the memory that adapters lie in: a socket pair beside the
// connection of each such rank, made by the supervisor, over which nothing but descriptors travels. Neither end ever
// waits: what cannot be handed over at once travels as bytes over the connection instead.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "kernels/base/descriptor.h"
#include "kernels/base/error.h"

namespace lorikeet::actors {

// The head's end and the rank's, closed on exec.
Result<std::pair<Descriptor, Descriptor>> make_descriptor_channel();

// The head's ends, by rank. Threads: any.
class DescriptorSenders {
 public:
  // Sets the end of a rank's present process, in place of an earlier process's.
  void put(int32_t rank, Descriptor end);

  // Hands `memory`, which stays open here, to the rank under a unique number. Errors: the rank is on another host, gone, or
  // has not taken what it was handed before.
  Result<void> send(int32_t rank, uint64_t number, const Descriptor& memory) const;

 private:
  mutable std::mutex mutex_;
  std::map<int32_t, std::shared_ptr<const Descriptor>> ends_;
};

// The rank's end. Threads: one at a time.
class DescriptorReceiver {
 public:
  explicit DescriptorReceiver(Descriptor end) : end_(std::move(end)) {}

  // What was handed over under this number; all that was handed over before it is closed. Errors: it is not there.
  Result<Descriptor> receive(uint64_t number);

 private:
  const Descriptor end_;
};

}  // namespace lorikeet::actors
