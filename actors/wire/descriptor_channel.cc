#include "actors/wire/descriptor_channel.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace lorikeet::actors {
namespace {

// A number of 8 bytes, and room for one descriptor beside it.
struct Message {
  uint64_t number = 0;
  iovec part{&number, sizeof number};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> with{};
  msghdr header{};

  Message() {
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = with.data();
    header.msg_controllen = with.size();
  }
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;
};

// The descriptor that has come with a message; void where none has.
Descriptor descriptor_in(msghdr& header) {
  Descriptor found;
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    int descriptor = -1;
    std::memcpy(&descriptor, CMSG_DATA(part), sizeof descriptor);
    found.reset(descriptor);
  }
  return found;
}

}  // namespace

Result<std::pair<Descriptor, Descriptor>> make_descriptor_channel() {
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail("no socket pair for descriptors: {}", std::strerror(errno));
  }
  return std::pair(Descriptor(ends[0]), Descriptor(ends[1]));
}

void DescriptorSenders::put(int32_t rank, Descriptor end) {
  auto made = std::make_shared<const Descriptor>(std::move(end));
  const std::lock_guard lock(mutex_);
  ends_[rank].swap(made);
}

Result<void> DescriptorSenders::send(int32_t rank, uint64_t number, const Descriptor& memory) const {
  std::shared_ptr<const Descriptor> end;
  {
    const std::lock_guard lock(mutex_);
    const auto found = ends_.find(rank);
    if (found == ends_.end()) return fail("rank {} takes no descriptors", rank);
    end = found->second;
  }
  Message message;
  message.number = number;
  cmsghdr* with = CMSG_FIRSTHDR(&message.header);
  with->cmsg_level = SOL_SOCKET;
  with->cmsg_type = SCM_RIGHTS;
  with->cmsg_len = CMSG_LEN(sizeof(int));
  const int descriptor = memory.get();
  std::memcpy(CMSG_DATA(with), &descriptor, sizeof descriptor);
  ssize_t sent = 0;
  do {
    sent = sendmsg(end->get(), &message.header, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) return fail("a descriptor to rank {}: {}", rank, std::strerror(errno));
  return {};
}

Result<Descriptor> DescriptorReceiver::receive(uint64_t number) {
  for (;;) {
    Message message;
    // The space, which is rounded up, would let a second one in.
    message.header.msg_controllen = CMSG_LEN(sizeof(int));
    const ssize_t got = recvmsg(end_.get(), &message.header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail("no descriptor has come under the number {}: {}", number, std::strerror(errno));
    if (got == 0) return fail("no descriptor has come under the number {}: the head is gone", number);
    Descriptor found = descriptor_in(message.header);
    if (got != sizeof message.number || message.number != number) continue;  // of a transfer that was rolled back
    if (!found) return fail("the descriptor under the number {} was lost: too many are open", number);
    return found;
  }
}

}  // namespace lorikeet::actors
