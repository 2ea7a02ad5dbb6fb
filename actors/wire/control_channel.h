// The channel between the supervisor and one child: a socket pair, of which the child inherits one end as descriptor 3. When
// either process dies, the other one reads the end of the stream at once, whatever killed it. The supervisors of a
// cluster's hosts speak the same way over their link, which carries no descriptors.
#pragma once

#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "actors/wire/control_message.h"
#include "actors/wire/host_message.h"
#include "kernels/base/descriptor.h"
#include "kernels/base/error.h"

namespace lorikeet::actors {

// One end. Messages are framed by their length (4 bytes, little endian) and encoded by comm/codec/codec.h.
// Threads: send from any; receive from one.
class ControlChannel {
 public:
  static constexpr int kChildDescriptor = 3;
  static constexpr int kHeadDescriptor = 4;         // a rank's connection to the head, inherited as well
  static constexpr int kDescriptorsDescriptor = 5;  // its end of the channel for descriptors, where the head is here

  explicit ControlChannel(int descriptor);  // takes it over
  ~ControlChannel();
  ControlChannel(const ControlChannel&) = delete;
  ControlChannel& operator=(const ControlChannel&) = delete;

  // Two connected ends, closed on exec; the first, the supervisor's, waits no longer than 2 s for the other to read.
  static Result<std::pair<int, int>> make_pair();

  int descriptor() const { return descriptor_; }

  // A peer that is gone is an error; the message is then lost. A descriptor that goes with it (-1: none) stays open here.
  Result<void> send(const ChildStart& start);
  Result<void> send(const ChildOrder& order, int descriptor = -1);
  Result<void> send(const ChildReport& report, int descriptor = -1);
  Result<void> send(const HostOrder& order);
  Result<void> send(const HostReport& report);

  // Waits until something can be received. False: the descriptor cannot be used.
  bool wait() const;

  // Waits for the next message. nullopt: the peer is gone. Errors: a malformed message.
  Result<std::optional<ChildStart>> receive_start();
  Result<std::optional<ChildOrder>> receive_order();
  Result<std::optional<ChildReport>> receive_report();
  Result<std::optional<HostOrder>> receive_host_order();
  Result<std::optional<HostReport>> receive_host_report();

  // The descriptor that came with the message received last; void where none did. Thread: the receiving one.
  Descriptor take_descriptor() { return std::move(received_); }

 private:
  Result<void> send_bytes(const std::vector<uint8_t>& bytes, int descriptor = -1);
  Result<std::optional<std::vector<uint8_t>>> receive_bytes();

  // Reads exactly `size` bytes; false where the stream ends (or breaks) first.
  bool read_all(uint8_t* data, size_t size);

  const int descriptor_;
  std::mutex sending_;
  Descriptor received_;  // with the present message
};

}  // namespace lorikeet::actors
