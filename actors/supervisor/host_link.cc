#include "actors/supervisor/host_link.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <utility>

namespace lorikeet::actors {
namespace {

constexpr timeval kMessagePatience{2, 0};  // in the middle of a message

}  // namespace

HostLink::HostLink(Descriptor plain, std::chrono::milliseconds beat)
    : channel_(plain.release()), beat_ms_(beat.count()) {
  setsockopt(channel_.descriptor(), SOL_SOCKET, SO_SNDTIMEO, &kMessagePatience, sizeof(kMessagePatience));
  setsockopt(channel_.descriptor(), SOL_SOCKET, SO_RCVTIMEO, &kMessagePatience, sizeof(kMessagePatience));
}

void HostLink::stop() {
  end();
  if (thread_.joinable()) thread_.join();
}

void HostLink::start(Callbacks callbacks) {
  callbacks_ = std::move(callbacks);
  thread_ = std::thread([this] { run(); });
}

void HostLink::end() {
  shutdown(channel_.descriptor(), SHUT_RDWR);
}

void HostLink::run() {
  const std::string why = hear();
  end();
  callbacks_.lost(why);
}

std::string HostLink::hear() {
  using Clock = std::chrono::steady_clock;
  Clock::time_point heard = Clock::now(), next_beat = heard;
  for (;;) {
    const std::chrono::milliseconds beat(beat_ms_);
    auto now = Clock::now();
    next_beat = std::min(next_beat, now + beat);  // it may have become shorter meanwhile
    if (now >= next_beat) {
      callbacks_.beat(channel_);
      next_beat = now + beat;
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(next_beat - now).count();
    pollfd state{channel_.descriptor(), POLLIN, 0};
    const int found = poll(&state, 1, static_cast<int>(std::max<int64_t>(left, 0)));
    now = Clock::now();
    if (found > 0) {
      if (!callbacks_.receive(channel_)) return "the connection has ended";
      heard = now;
    } else if (now - heard > kSilentBeats * beat) {
      return fmt::format("it has been silent for {} ms", (kSilentBeats * beat).count());
    }
  }
}

}  // namespace lorikeet::actors
