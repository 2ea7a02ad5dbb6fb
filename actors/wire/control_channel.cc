#include "actors/wire/control_channel.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "actors/wire/limits.h"
#include "comm/codec/codec.h"

namespace lorikeet::actors {
namespace {

// Reads exactly `size` bytes; false where the stream ends (or breaks) first.
bool read_all(int descriptor, uint8_t* data, size_t size) {
  while (size > 0) {
    const ssize_t got = recv(descriptor, data, size, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    data += got;
    size -= static_cast<size_t>(got);
  }
  return true;
}

template <class T>
Result<std::optional<T>> decoded(Result<std::optional<std::vector<uint8_t>>> bytes) {
  if (!bytes) return tl::unexpected(bytes.error());
  if (!*bytes) return std::optional<T>();
  auto message = comm::decode<T>(**bytes);
  if (!message) return fail("control channel: {}", message.error().message);
  return std::optional<T>(*std::move(message));
}

}  // namespace

ControlChannel::ControlChannel(int descriptor) : descriptor_(descriptor) {}

ControlChannel::~ControlChannel() {
  close(descriptor_);
}

Result<std::pair<int, int>> ControlChannel::make_pair() {
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail("no socket pair for a child process: {}", std::strerror(errno));
  }
  // A child that does not read must not hold up the supervisor.
  const timeval patience{2, 0};
  setsockopt(ends[0], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  return std::pair(ends[0], ends[1]);
}

Result<void> ControlChannel::send(const ChildStart& start) {
  return send_bytes(comm::encode(start));
}

Result<void> ControlChannel::send(const ChildOrder& order) {
  return send_bytes(comm::encode(order));
}

Result<void> ControlChannel::send(const ChildReport& report) {
  return send_bytes(comm::encode(report));
}

Result<void> ControlChannel::send_bytes(const std::vector<uint8_t>& bytes) {
  const auto size = static_cast<uint32_t>(bytes.size());
  std::vector<uint8_t> frame = {static_cast<uint8_t>(size), static_cast<uint8_t>(size >> 8),
                                static_cast<uint8_t>(size >> 16), static_cast<uint8_t>(size >> 24)};
  frame.insert(frame.end(), bytes.begin(), bytes.end());
  const std::lock_guard lock(sending_);
  for (size_t sent = 0; sent < frame.size();) {
    const ssize_t count = ::send(descriptor_, frame.data() + sent, frame.size() - sent, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail("control channel: {}", std::strerror(errno));
    sent += static_cast<size_t>(count);
  }
  return {};
}

Result<std::optional<std::vector<uint8_t>>> ControlChannel::receive_bytes() {
  std::array<uint8_t, 4> head{};
  if (!read_all(descriptor_, head.data(), head.size())) return std::nullopt;
  const uint32_t size = head[0] | uint32_t{head[1]} << 8 | uint32_t{head[2]} << 16 | uint32_t{head[3]} << 24;
  if (size > kMaxControlBytes) return fail("control channel: a message of {} bytes", size);
  std::vector<uint8_t> bytes(size);
  if (!read_all(descriptor_, bytes.data(), size)) return std::nullopt;
  return bytes;
}

Result<std::optional<ChildStart>> ControlChannel::receive_start() {
  return decoded<ChildStart>(receive_bytes());
}

Result<std::optional<ChildOrder>> ControlChannel::receive_order() {
  return decoded<ChildOrder>(receive_bytes());
}

Result<std::optional<ChildReport>> ControlChannel::receive_report() {
  return decoded<ChildReport>(receive_bytes());
}

}  // namespace lorikeet::actors
