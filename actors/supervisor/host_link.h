// One end of the link between the supervisors of two hosts: receives messages, sends heartbeats, notices silence.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>

#include "actors/wire/control_channel.h"
#include "kernels/base/descriptor.h"

namespace lorikeet::actors {

// Threads: any.
class HostLink {
 public:
  static constexpr int kSilentBeats = 10;  // after which the other end is lost

  // Called on the link's thread.
  struct Callbacks {
    std::function<bool(ControlChannel&)> receive;  // takes the next message, which has arrived; false: ends the link
    std::function<void(ControlChannel&)> beat;
    std::function<void(const std::string& why)> lost;  // the last call; once
  };

  // plain: of comm/cluster/tls_relay.h. Nothing happens before start().
  HostLink(Descriptor plain, std::chrono::milliseconds beat);
  ~HostLink() { stop(); }

  void start(Callbacks callbacks);
  void end();   // lost() follows, unless it was called before
  void stop();  // and waits for it; not on the link's thread
  void set_beat(std::chrono::milliseconds beat) { beat_ms_ = beat.count(); }
  ControlChannel& channel() { return channel_; }  // sending waits two seconds at most

 private:
  void run();
  std::string hear();

  ControlChannel channel_;
  std::atomic<int64_t> beat_ms_;
  Callbacks callbacks_;
  std::thread thread_;
};

}  // namespace lorikeet::actors
