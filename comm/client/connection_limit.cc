#include "comm/client/connection_limit.h"

#include <fmt/format.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>

namespace lorikeet::comm {
namespace {

constexpr size_t kShareOfAdapters = 8;   // 1 / so much of the descriptors: actors/wire/limits.h
constexpr uint64_t kGreetingBytes = 64;  // of ZeroMQ; a peer that has not sent them has not said that it is one

struct Event {
  uint16_t kind = 0;
  int32_t value = 0;
};

std::optional<Event> next_event(zmq::socket_t& events) {
  zmq::message_t first;
  if (!events.recv(first, zmq::recv_flags::dontwait)) return std::nullopt;
  Event event;
  if (first.size() >= sizeof(event.kind) + sizeof(event.value)) {
    std::memcpy(&event.kind, first.data(), sizeof(event.kind));
    std::memcpy(&event.value, static_cast<const char*>(first.data()) + sizeof(event.kind), sizeof(event.value));
  }
  for (bool more = first.more(); more;) {
    zmq::message_t rest;
    if (!events.recv(rest, zmq::recv_flags::dontwait)) break;
    more = rest.more();
  }
  return event;
}

// What has come over a TCP connection; nullopt for what is none.
std::optional<uint64_t> bytes_received(int descriptor) {
  tcp_info about{};
  socklen_t size = sizeof(about);
  if (getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, &about, &size) != 0) return std::nullopt;
  return about.tcpi_bytes_received;
}

bool has_said_nothing(int descriptor) {
  const auto bytes = bytes_received(descriptor);
  return bytes && *bytes < kGreetingBytes;
}

// A connection that somebody else has made; ZeroMQ may have closed its own meanwhile, and the number may be another's.
bool is_accepted(int descriptor) {
  sockaddr_storage name{};
  socklen_t size = sizeof(name);
  // Our own socket pairs have no name.
  return getsockname(descriptor, reinterpret_cast<sockaddr*>(&name), &size) == 0 && size > sizeof(sa_family_t);
}

}  // namespace

size_t descriptors_for_connections(size_t reserved) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1;
  std::error_code error;
  const std::filesystem::directory_iterator open("/proc/self/fd", error);
  const auto used = static_cast<size_t>(error ? 0 : std::distance(begin(open), end(open)));
  const auto most = static_cast<size_t>(limit.rlim_cur);
  const size_t others = most / kShareOfAdapters + used + reserved;
  return most > others ? most - others : 1;
}

ConnectionLimit::ConnectionLimit(zmq::context_t& context, zmq::socket_t& listener, size_t max_connections,
                                 size_t max_unspoken)
    : listener_(listener),
      max_connections_(std::max<size_t>(max_connections, 1)),
      max_unspoken_(std::max<size_t>(max_unspoken, 1)),
      events_(context, zmq::socket_type::pair) {
  const std::string address = fmt::format("inproc://connections-{}", static_cast<const void*>(this));
  if (zmq_socket_monitor(listener.handle(), address.c_str(), ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED) != 0) {
    throw zmq::error_t();
  }
  events_.set(zmq::sockopt::rcvhwm, 0);  // ZeroMQ's thread must never wait for us
  events_.set(zmq::sockopt::linger, 0);
  events_.connect(address);
}

ConnectionLimit::~ConnectionLimit() {
  zmq_socket_monitor(listener_.handle(), nullptr, 0);
}

void ConnectionLimit::act() {
  while (const auto event = next_event(events_)) {
    const auto known = std::find_if(open_.begin(), open_.end(),
                                    [&](const Connection& open) { return open.descriptor == event->value; });
    if (known != open_.end()) open_.erase(known);
    forget_unspoken(event->value);
    spoken_.erase(event->value);
    if (event->kind != ZMQ_EVENT_ACCEPTED) continue;
    open_.push_back({event->value, false});
    if (bytes_received(event->value)) places_[event->value] = unspoken_.insert(unspoken_.end(), event->value);
  }
  cut_unspoken();
  const auto cut =
      static_cast<size_t>(std::count_if(open_.begin(), open_.end(), [](const Connection& open) { return open.cut; }));
  for (size_t left = open_.size() - cut; left > max_connections_; --left) cut_one();
}

void ConnectionLimit::cut_one() {
  const auto fit = [](const Connection& open) { return !open.cut && has_said_nothing(open.descriptor); };
  auto victim = std::find_if(open_.begin(), open_.end(), fit);
  if (victim == open_.end()) {
    const auto newest = std::find_if(open_.rbegin(), open_.rend(), [](const Connection& open) { return !open.cut; });
    victim = std::prev(newest.base());
  }
  cut(*victim);
}

void ConnectionLimit::cut(Connection& connection) {
  connection.cut = true;
  // ZeroMQ then reads its end, closes it, and says so.
  if (is_accepted(connection.descriptor)) shutdown(connection.descriptor, SHUT_RDWR);
}

void ConnectionLimit::cut_unspoken() {
  while (unspoken_.size() > max_unspoken_) {
    const int oldest = unspoken_.front();
    forget_unspoken(oldest);
    const auto open = std::find_if(open_.begin(), open_.end(),
                                   [&](const Connection& connection) { return connection.descriptor == oldest; });
    if (open != open_.end() && !open->cut) cut(*open);
  }
}

void ConnectionLimit::note_spoken(int descriptor) {
  act();  // that it was accepted may not have been read yet
  spoken_.insert(descriptor);
  forget_unspoken(descriptor);
}

void ConnectionLimit::forget_unspoken(int descriptor) {
  const auto place = places_.extract(descriptor);
  if (place) unspoken_.erase(place.mapped());
}

}  // namespace lorikeet::comm
