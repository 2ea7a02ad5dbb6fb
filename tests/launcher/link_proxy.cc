#include "tests/launcher/link_proxy.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace lorikeet::tests {
namespace {

constexpr size_t kMostWaiting = 256 << 10;  // of bytes for one side; then its peer is not read

sockaddr_in address_of(const std::string& address, uint16_t port) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  inet_pton(AF_INET, address.c_str(), &to.sin_addr);
  return to;
}

void hurry(int socket) {
  const int on = 1;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

}  // namespace

LinkProxy::LinkProxy(const std::string& address, uint16_t to)
    : address_(address),
      to_(to),
      socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  sockaddr_in here = address_of(address, 0);
  socklen_t size = sizeof(here);
  EXPECT_EQ(bind(socket_.get(), reinterpret_cast<sockaddr*>(&here), size), 0);
  EXPECT_EQ(listen(socket_.get(), 64), 0);
  EXPECT_EQ(getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&here), &size), 0);
  port_ = ntohs(here.sin_port);
  thread_ = std::thread([this] { run(); });  // in the caller's namespace, as its sockets then are
}

LinkProxy::~LinkProxy() {
  stopping_ = true;
  const uint64_t one = 1;
  (void)!write(wake_.get(), &one, sizeof(one));
  thread_.join();
}

size_t LinkProxy::connections() const {
  const std::lock_guard lock(mutex_);
  return connections_.size();
}

void LinkProxy::hold(size_t connection, bool held) {
  const std::lock_guard lock(mutex_);
  connections_.at(connection)->held = held;
  const uint64_t one = 1;
  (void)!write(wake_.get(), &one, sizeof(one));
}

void LinkProxy::cut(size_t connection) {
  const std::lock_guard lock(mutex_);
  connections_.at(connection)->cut = true;
  const uint64_t one = 1;
  (void)!write(wake_.get(), &one, sizeof(one));
}

bool LinkProxy::accept_one() {
  Descriptor from(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!from) return false;
  Descriptor to(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in head = address_of(address_, to_);
  if (connect(to.get(), reinterpret_cast<const sockaddr*>(&head), sizeof(head)) != 0) return true;  // not yet there
  hurry(from.get());
  hurry(to.get());
  auto fresh = std::make_unique<Connection>();
  fresh->ends[0] = std::move(from);
  fresh->ends[1] = std::move(to);
  connections_.push_back(std::move(fresh));
  return true;
}

// False: it is over.
bool LinkProxy::get_on(Connection& c, Clock::time_point now, Clock::time_point& next) {
  if (c.cut) return false;
  if (c.held) return true;
  for (const int from : {0, 1}) {
    auto& waiting = c.to[1 - from];
    size_t bytes = 0;
    for (const Chunk& chunk : waiting) bytes += chunk.bytes.size();
    char buffer[64 << 10];
    while (!c.ended[from] && bytes < kMostWaiting) {
      const ssize_t got = recv(c.ends[from].get(), buffer, sizeof(buffer), MSG_DONTWAIT);
      if (got < 0 && (errno == EAGAIN || errno == EINTR)) break;
      c.ended[from] = got <= 0;
      if (got <= 0) break;
      waiting.push_back({now + std::chrono::microseconds(delay_us_), std::string(buffer, static_cast<size_t>(got))});
      bytes += static_cast<size_t>(got);
      bytes_[from] += static_cast<uint64_t>(got);
    }
    while (!waiting.empty() && waiting.front().due <= now) {
      std::string& front = waiting.front().bytes;
      const ssize_t sent = send(c.ends[1 - from].get(), front.data(), front.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent < 0 && (errno == EAGAIN || errno == EINTR)) break;
      if (sent < 0) return false;
      front.erase(0, static_cast<size_t>(sent));
      if (front.empty()) waiting.pop_front();
    }
    if (!waiting.empty()) next = std::min(next, std::max(waiting.front().due, now));
    if (c.ended[from] && waiting.empty()) return false;
  }
  return true;
}

void LinkProxy::run() {
  while (!stopping_) {
    std::vector<pollfd> waits = {{socket_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
    auto next = Clock::now() + std::chrono::seconds(1);
    {
      const std::lock_guard lock(mutex_);
      while (accept_one()) {
      }
      for (const auto& connection : connections_) {
        if (!connection->ends[0]) continue;
        if (!get_on(*connection, Clock::now(), next)) {
          connection->ends[0].reset();
          connection->ends[1].reset();
          continue;
        }
        if (connection->held) continue;
        for (const int end : {0, 1}) {
          const bool writes = !connection->to[end].empty() && connection->to[end].front().due <= Clock::now();
          const bool reads = !connection->ended[end] && connection->to[1 - end].size() < 64;
          const auto events = static_cast<short>((reads ? POLLIN : 0) | (writes ? POLLOUT : 0));
          if (events != 0) waits.push_back({connection->ends[end].get(), events, 0});
        }
      }
    }
    const auto left = std::max(next - Clock::now(), Clock::duration::zero());
    const timespec patience{std::chrono::duration_cast<std::chrono::seconds>(left).count(),
                            (left % std::chrono::seconds(1)).count()};
    if (ppoll(waits.data(), waits.size(), &patience, nullptr) < 0) continue;
    uint64_t woken = 0;
    (void)!read(wake_.get(), &woken, sizeof(woken));
  }
}

}  // namespace lorikeet::tests
