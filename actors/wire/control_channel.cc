#include "actors/wire/control_channel.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "actors/wire/limits.h"
#include "comm/codec/codec.h"

namespace lorikeet::actors {
namespace {

// Room for one descriptor beside the bytes of a message.
union DescriptorMessage {
  cmsghdr alignment;
  std::array<char, CMSG_SPACE(sizeof(int))> bytes;
};

template <class T>
Result<std::optional<T>> decoded(Result<std::optional<std::vector<uint8_t>>> bytes) {
  if (!bytes) return tl::unexpected(bytes.error());
  if (!*bytes) return std::optional<T>();
  auto message = comm::decode<T>(**bytes);
  if (!message) return fail("control channel: {}", message.error().message);
  std::optional<T> found;
  found.emplace(*std::move(message));
  return found;
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

Result<void> ControlChannel::send(const ChildOrder& order, int descriptor) {
  return send_bytes(comm::encode(order), descriptor);
}

Result<void> ControlChannel::send(const ChildReport& report, int descriptor) {
  return send_bytes(comm::encode(report), descriptor);
}

Result<void> ControlChannel::send(const HostOrder& order) {
  return send_bytes(comm::encode(order));
}

Result<void> ControlChannel::send(const HostReport& report) {
  return send_bytes(comm::encode(report));
}

Result<void> ControlChannel::send_bytes(const std::vector<uint8_t>& bytes, int descriptor) {
  const auto size = static_cast<uint32_t>(bytes.size());
  std::vector<uint8_t> frame = {static_cast<uint8_t>(size), static_cast<uint8_t>(size >> 8),
                                static_cast<uint8_t>(size >> 16), static_cast<uint8_t>(size >> 24)};
  frame.insert(frame.end(), bytes.begin(), bytes.end());
  const std::lock_guard lock(sending_);
  for (size_t sent = 0; sent < frame.size();) {
    iovec part{frame.data() + sent, frame.size() - sent};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    DescriptorMessage with{};
    if (descriptor >= 0 && sent == 0) {  // it travels with the first byte
      message.msg_control = with.bytes.data();
      message.msg_controllen = with.bytes.size();
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
    }
    const ssize_t count = sendmsg(descriptor_, &message, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail("control channel: {}", std::strerror(errno));
    sent += static_cast<size_t>(count);
  }
  return {};
}

bool ControlChannel::wait() const {
  pollfd state{descriptor_, POLLIN, 0};
  while (poll(&state, 1, -1) < 0) {
    if (errno != EINTR) return false;
  }
  return true;
}

bool ControlChannel::read_all(uint8_t* data, size_t size) {
  while (size > 0) {
    iovec part{data, size};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    DescriptorMessage with{};
    message.msg_control = with.bytes.data();
    message.msg_controllen = CMSG_LEN(sizeof(int));  // the space, which is rounded up, would let a second one in
    const ssize_t got = recvmsg(descriptor_, &message, MSG_CMSG_CLOEXEC);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
      if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
      int descriptor = -1;
      std::memcpy(&descriptor, CMSG_DATA(header), sizeof(int));
      received_.reset(descriptor);
    }
    data += got;
    size -= static_cast<size_t>(got);
  }
  return true;
}

Result<std::optional<std::vector<uint8_t>>> ControlChannel::receive_bytes() {
  received_.reset();
  std::array<uint8_t, 4> head{};
  if (!read_all(head.data(), head.size())) return std::nullopt;
  const uint32_t size = head[0] | uint32_t{head[1]} << 8 | uint32_t{head[2]} << 16 | uint32_t{head[3]} << 24;
  if (size > kMaxControlBytes) return fail("control channel: a message of {} bytes", size);
  std::vector<uint8_t> bytes(size);
  if (!read_all(bytes.data(), size)) return std::nullopt;
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

Result<std::optional<HostOrder>> ControlChannel::receive_host_order() {
  return decoded<HostOrder>(receive_bytes());
}

Result<std::optional<HostReport>> ControlChannel::receive_host_report() {
  return decoded<HostReport>(receive_bytes());
}

}  // namespace lorikeet::actors
