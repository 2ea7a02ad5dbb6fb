#include "comm/collective/peer_exchange.h"

#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <optional>
#include <utility>

#include <glog/logging.h>

namespace lorikeet::comm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kSecretBytes = 16;
using Secret = std::array<uint8_t, kSecretBytes>;

// Where a rank listens, as its value in the store: the host's id, the socket's name, the secret.
struct Address {
  std::string host;
  Secret name{}, secret{};
};

// The first and only message on a line, with the descriptor beside it.
struct Hello {
  uint32_t magic = 0;
  int32_t rank = -1;
  Secret secret{};  // of the rank that listens
  uint32_t about_bytes = 0;
  char about[kMostAboutBytes] = {};
};
constexpr uint32_t kMagic = 0x4c4b5031;  // "LKP1"

std::string reason() {
  return std::strerror(errno);
}

// The same for all processes of one running host.
std::string host_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

Secret random_secret() {
  Secret secret;
  CHECK_EQ(getrandom(secret.data(), secret.size(), 0), static_cast<ssize_t>(secret.size()));
  return secret;
}

std::vector<uint8_t> bytes_of(const Address& address) {
  std::vector<uint8_t> bytes(address.name.begin(), address.name.end());
  bytes.insert(bytes.end(), address.secret.begin(), address.secret.end());
  bytes.insert(bytes.end(), address.host.begin(), address.host.end());
  return bytes;
}

std::optional<Address> address_of(const std::vector<uint8_t>& bytes) {
  if (bytes.size() < 2 * kSecretBytes) return std::nullopt;
  Address address;
  std::copy_n(bytes.begin(), kSecretBytes, address.name.begin());
  std::copy_n(bytes.begin() + kSecretBytes, kSecretBytes, address.secret.begin());
  address.host.assign(bytes.begin() + 2 * kSecretBytes, bytes.end());
  return address;
}

// An abstract name: no file that could be left behind.
socklen_t socket_name(const Secret& name, sockaddr_un& to) {
  to = {};
  to.sun_family = AF_UNIX;
  constexpr char kPrefix[] = "lorikeet-";
  char* at = to.sun_path + 1;
  at = std::copy_n(kPrefix, sizeof kPrefix - 1, at);
  for (const uint8_t byte : name) {
    constexpr char kDigits[] = "0123456789abcdef";
    *at++ = kDigits[byte >> 4];
    *at++ = kDigits[byte & 15];
  }
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + (at - to.sun_path));
}

Descriptor make_socket() {
  return Descriptor(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

// Waits until the socket can be read. False: the deadline has passed.
bool wait_readable(const Descriptor& socket, Clock::time_point deadline) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd item{socket.get(), POLLIN, 0};
    const int ready = poll(&item, 1, static_cast<int>(std::max<int64_t>(left, 0)));
    if (ready > 0) return true;
    if (ready == 0 || errno != EINTR) return false;
  }
}

bool is_same_user(const Descriptor& line) {
  ucred peer{};
  socklen_t size = sizeof peer;
  return getsockopt(line.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}

Result<void> send_hello(const Descriptor& line, int rank, const Secret& secret, const PeerOffer& offer) {
  Hello hello;
  hello.magic = kMagic;
  hello.rank = rank;
  hello.secret = secret;
  hello.about_bytes = static_cast<uint32_t>(offer.about.size());
  std::copy(offer.about.begin(), offer.about.end(), hello.about);
  iovec data{&hello, sizeof hello};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int descriptor = offer.descriptor.get();
  std::memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
  if (sendmsg(line.get(), &message, MSG_NOSIGNAL) != static_cast<ssize_t>(sizeof hello)) {
    return fail("a descriptor could not be sent: {}", reason());
  }
  return {};
}

struct Met {
  int rank = -1;
  Secret secret{};
  PeerOffer offer;
};

// What a peer says of itself. Descriptors that it should not have sent are closed.
Result<Met> receive_hello(const Descriptor& line, Clock::time_point deadline) {
  if (!wait_readable(line, deadline)) return fail("a peer did not say who it is in time");
  Hello hello;
  iovec data{&hello, sizeof hello};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t size = recvmsg(line.get(), &message, MSG_CMSG_CLOEXEC);
  Met met;
  const cmsghdr* header = size < 0 ? nullptr : CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
      header->cmsg_len == CMSG_LEN(sizeof(int))) {
    int descriptor = -1;
    std::memcpy(&descriptor, CMSG_DATA(header), sizeof descriptor);
    met.offer.descriptor.reset(descriptor);
  }
  if (size != static_cast<ssize_t>(sizeof hello) || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 ||
      hello.magic != kMagic || !met.offer.descriptor || hello.about_bytes > kMostAboutBytes) {
    return fail("what a peer says of itself cannot be read");
  }
  met.rank = hello.rank;
  met.secret = hello.secret;
  met.offer.about.assign(hello.about, hello.about_bytes);
  return met;
}

// One rank's way through the exchange.
class Exchange {
 public:
  Exchange(Rendezvous& store, const PeerExchangeOptions& options, Result<PeerOffer> offer)
      : store_(store), options_(options), offer_(std::move(offer)), deadline_(Clock::now() + options.timeout) {
    peers_.offers.resize(static_cast<size_t>(options.size));
    peers_.lines.resize(static_cast<size_t>(options.size));
  }

  Result<Peers> run() {
    if (offer_ && offer_->about.size() > kMostAboutBytes) offer_ = fail("too much is said about a rank");
    own_ = {host_id(), random_secret(), random_secret()};
    if (offer_) {
      if (auto listening = listen_for_peers(); !listening) offer_ = tl::unexpected(listening.error());
    }
    store_.set(key_of(options_.rank), offer_ ? bytes_of(own_) : std::vector<uint8_t>{0});
    if (auto learned = learn_addresses(); !learned) return tl::unexpected(learned.error());
    for (int r = 0; r < options_.rank; ++r) {
      if (auto met = call(r); !met) return fail("rank {}: {}", r, met.error().message);
    }
    for (int missing = options_.size - options_.rank - 1; missing > 0;) {
      if (!wait_readable(listener_, deadline_)) return fail("{} ranks did not call in time", missing);
      missing -= answer() ? 1 : 0;
    }
    return std::move(peers_);
  }

 private:
  std::string key_of(int rank) const { return fmt::format("{}/peer/{}", options_.prefix, rank); }

  Result<void> listen_for_peers() {
    listener_ = make_socket();
    sockaddr_un name;
    const socklen_t size = socket_name(own_.name, name);
    if (!listener_ || bind(listener_.get(), reinterpret_cast<sockaddr*>(&name), size) != 0 ||
        listen(listener_.get(), options_.size) != 0) {
      return fail("no socket for the other ranks of this host: {}", reason());
    }
    return {};
  }

  Result<void> learn_addresses() {
    for (int r = 0; r < options_.size; ++r) {
      addresses_.push_back(own_);
      if (r == options_.rank) continue;
      const std::vector<uint8_t> value = store_.get(key_of(r), options_.timeout);
      if (!offer_) continue;
      const auto address = address_of(value);
      if (!address) return fail("rank {} offers nothing", r);
      if (address->host != own_.host) return fail("rank {} is on another host", r);
      addresses_.back() = *address;
    }
    if (!offer_) return tl::unexpected(offer_.error());
    return {};
  }

  // Calls a rank before this one.
  Result<void> call(int r) {
    const Address& address = addresses_[static_cast<size_t>(r)];
    Descriptor line = make_socket();
    sockaddr_un name;
    const socklen_t size = socket_name(address.name, name);
    if (!line || connect(line.get(), reinterpret_cast<sockaddr*>(&name), size) != 0) {
      return fail("cannot be called: {}", reason());
    }
    if (!is_same_user(line)) return fail("belongs to another user");
    if (auto sent = send_hello(line, options_.rank, address.secret, *offer_); !sent) return sent;
    auto met = receive_hello(line, deadline_);
    if (!met) return tl::unexpected(met.error());
    if (met->rank != r || met->secret != address.secret) return fail("another process answered");
    keep(*std::move(met), std::move(line));
    return {};
  }

  // Hears one caller. False: it was no rank that is still missing.
  bool answer() {
    Descriptor line(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!line || !is_same_user(line)) return false;
    constexpr std::chrono::seconds kLongestHello{1};  // a stranger that says nothing must not use up the deadline
    auto met = receive_hello(line, std::min(deadline_, Clock::now() + kLongestHello));
    if (!met || met->secret != own_.secret || met->rank <= options_.rank || met->rank >= options_.size ||
        peers_.lines[static_cast<size_t>(met->rank)]) {
      return false;
    }
    if (!send_hello(line, options_.rank, own_.secret, *offer_)) return false;
    keep(*std::move(met), std::move(line));
    return true;
  }

  void keep(Met met, Descriptor line) {
    const auto r = static_cast<size_t>(met.rank);
    peers_.offers[r] = std::move(met.offer);
    peers_.lines[r] = std::move(line);
  }

  Rendezvous& store_;
  const PeerExchangeOptions& options_;
  Result<PeerOffer> offer_;
  const Clock::time_point deadline_;
  Address own_;
  Descriptor listener_;
  std::vector<Address> addresses_;
  Peers peers_;
};

}  // namespace

Result<Peers> exchange_with_peers(Rendezvous& store, const PeerExchangeOptions& options, Result<PeerOffer> offer) {
  return Exchange(store, options, std::move(offer)).run();
}

bool all_agree(Rendezvous& store, const PeerExchangeOptions& options, const std::string& name, bool yes) {
  const auto key_of = [&](int rank) { return fmt::format("{}/peer_{}/{}", options.prefix, name, rank); };
  store.set(key_of(options.rank), {static_cast<uint8_t>(yes ? 1 : 0)});
  bool all = yes;
  for (int r = 0; r < options.size; ++r) {
    if (r == options.rank) continue;
    all &= store.get(key_of(r), 3 * options.timeout) == std::vector<uint8_t>{1};
  }
  return all;
}

int lost_peer(const Peers& peers) {
  std::vector<pollfd> items;
  for (const Descriptor& line : peers.lines) items.push_back({line.get(), POLLIN, 0});  // -1 is passed over
  if (poll(items.data(), items.size(), 0) <= 0) return -1;
  const auto found = std::find_if(items.begin(), items.end(), [](const pollfd& item) { return item.revents != 0; });
  return found == items.end() ? -1 : static_cast<int>(found - items.begin());
}

}  // namespace lorikeet::comm
