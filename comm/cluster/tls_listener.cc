#include "comm/cluster/tls_listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "comm/cluster/first_words.h"
#include "comm/codec/codec.h"

namespace lorikeet::comm {
namespace {

constexpr int kBacklog = 1024;
constexpr int kAcceptsAtOnce = 64;                      // before those that are there get on
constexpr std::chrono::milliseconds kAcceptPause{100};  // when no descriptor is left

// The network that an address belongs to: one who has a /64 has as many addresses as it likes.
std::string source_of(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    return {reinterpret_cast<const char*>(&v4.sin_addr), sizeof(v4.sin_addr)};
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
  const auto* bytes = reinterpret_cast<const char*>(&v6.sin6_addr);
  if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) return {bytes + 12, 4};
  return {bytes, 8};
}

bool same_secret(const std::string& one, const std::string& other) {
  return one.size() == other.size() && CRYPTO_memcmp(one.data(), other.data(), one.size()) == 0;
}

Result<Descriptor> listen_at(const addrinfo& address) {
  Descriptor made(socket(address.ai_family, address.ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address.ai_protocol));
  if (!made) return fail("{}", std::strerror(errno));
  const int on = 1, off = 0;
  setsockopt(made.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (address.ai_family == AF_INET6) setsockopt(made.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
  if (bind(made.get(), address.ai_addr, address.ai_addrlen) != 0 || listen(made.get(), kBacklog) != 0) {
    return fail("{}", std::strerror(errno));
  }
  return made;
}

uint16_t port_of(int socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  // Both families have the port in the same place.
  return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

}  // namespace

TlsListener::TlsListener(std::shared_ptr<const TlsContext> context, std::string token, AdmissionLimits limits)
    : context_(std::move(context)),
      token_(std::move(token)),
      limits_(limits),
      stop_event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Result<std::unique_ptr<TlsListener>> TlsListener::open(const std::string& host, uint16_t port,
                                                       std::shared_ptr<const TlsContext> context, std::string token,
                                                       AdmissionLimits limits) {
  std::unique_ptr<TlsListener> made(new TlsListener(std::move(context), std::move(token), limits));
  if (!made->stop_event_) return fail("no event descriptor: {}", std::strerror(errno));
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const std::string service = std::to_string(port);
  if (const int error = getaddrinfo(host.empty() ? nullptr : host.c_str(), service.c_str(), &hints, &found);
      error != 0) {
    return fail("{} has no address: {}", host, gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);
  Result<Descriptor> socket = fail("there is no address");
  for (const addrinfo* address = found; address && !socket; address = address->ai_next) socket = listen_at(*address);
  if (!socket) return fail("cannot listen on {}:{}: {}", host.empty() ? "*" : host, port, socket.error().message);
  made->socket_ = *std::move(socket);
  made->port_ = port_of(made->socket_.get());
  return made;
}

TlsListener::~TlsListener() {
  const uint64_t one = 1;
  (void)!write(stop_event_.get(), &one, sizeof(one));
  if (thread_.joinable()) thread_.join();
}

void TlsListener::start(Callbacks callbacks) {
  callbacks_ = std::move(callbacks);
  thread_ = std::thread([this] { run(); });
}

void TlsListener::run() {
  std::vector<pollfd> waits;
  for (;;) {
    const auto before = Clock::now();
    const bool accepts = before >= accept_again_;
    waits.assign({{stop_event_.get(), POLLIN, 0}, {accepts ? socket_.get() : -1, POLLIN, 0}});
    for (const Unfinished& c : unfinished_) waits.push_back({c.connection.socket.get(), c.waits_for, 0});
    auto until = accepts ? before + std::chrono::hours(1) : accept_again_;
    if (!unfinished_.empty()) until = std::min(until, unfinished_.front().deadline);
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - before).count();
    if (poll(waits.data(), waits.size(), static_cast<int>(std::max<int64_t>(left, 0))) < 0 && errno != EINTR) return;
    if ((waits[0].revents & POLLIN) != 0) return;

    const auto now = Clock::now();
    size_t index = 2;
    for (auto it = unfinished_.begin(); it != unfinished_.end(); ++index) {
      const Place place = it++;
      std::string why = "it took too long";
      Outcome outcome = now >= place->deadline ? Outcome::refused : Outcome::waits;
      if (outcome == Outcome::waits && waits[index].revents != 0) outcome = get_on(*place, why);
      if (outcome == Outcome::waits) continue;
      if (outcome == Outcome::refused) {
        note_ends(place->connection);
        refuse(place->connection.peer_address, why);
      }
      remove(place);
    }
    if ((waits[1].revents & POLLIN) == 0) continue;
    for (int count = 0; count < kAcceptsAtOnce && accept_one(); ++count) {
    }
  }
}

// Whether there may be more.
bool TlsListener::accept_one() {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  Descriptor socket(accept4(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      if (!unfinished_.empty()) remove(unfinished_.begin());
      accept_again_ = Clock::now() + kAcceptPause;
    }
    return errno == ECONNABORTED || errno == EINTR;
  }
  tune_socket(socket.get());
  const std::string source = source_of(address);
  make_room(source);
  Unfinished fresh;
  fresh.connection.ssl = context_->over(socket.get());
  if (!fresh.connection.ssl) return true;
  fresh.connection.socket = std::move(socket);
  fresh.source = source;
  fresh.deadline = Clock::now() + limits_.time;
  fresh.waits_for = POLLIN;
  unfinished_.push_back(std::move(fresh));
  of_source_[source].push_back(std::prev(unfinished_.end()));
  return true;
}

// Who comes anew is let in at the cost of who has had its chance: a host of ours needs a few milliseconds.
void TlsListener::make_room(const std::string& source) {
  const auto own = of_source_.find(source);
  if (own != of_source_.end() && own->second.size() >= limits_.unfinished_per_source) {
    refuse("", "too many connections of one host at once");
    return remove(own->second.front());
  }
  if (unfinished_.size() < limits_.unfinished) return;
  const auto busiest = std::max_element(of_source_.begin(), of_source_.end(), [](const auto& one, const auto& other) {
    return one.second.size() < other.second.size();
  });
  refuse("", "too many connections at once");
  remove(busiest->second.front());
}

void TlsListener::remove(Place place) {
  const auto own = of_source_.find(place->source);
  own->second.remove(place);
  if (own->second.empty()) of_source_.erase(own);
  unfinished_.erase(place);
}

TlsListener::Outcome TlsListener::get_on(Unfinished& c, std::string& why) {
  SSL* ssl = c.connection.ssl.get();
  Outcome outcome = Outcome::waits;
  ERR_clear_error();
  if (!c.shaken) {
    const TlsStep step = tls_step(c.connection.ssl, SSL_do_handshake(ssl));
    c.shaken = step == TlsStep::done;
    c.waits_for = step == TlsStep::wants_write ? POLLOUT : POLLIN;
    c.wanted = kFirstWordsHeader;
    if (step == TlsStep::ended || step == TlsStep::failed) {
      why = tls_failure(c.connection.ssl);
      return Outcome::refused;
    }
  }
  if (c.shaken) outcome = read_words(c, why);
  if (outcome == Outcome::waits && BIO_number_read(SSL_get_rbio(ssl)) > limits_.bytes) {
    why = "it said too much";
    return Outcome::refused;
  }
  return outcome;
}

// Reads no byte beyond them.
TlsListener::Outcome TlsListener::read_words(Unfinished& c, std::string& why) {
  for (;;) {
    while (c.frame.size() < c.wanted) {
      const size_t had = c.frame.size();
      c.frame.resize(c.wanted);
      const int got = SSL_read(c.connection.ssl.get(), c.frame.data() + had, static_cast<int>(c.wanted - had));
      c.frame.resize(had + static_cast<size_t>(std::max(got, 0)));
      const TlsStep step = tls_step(c.connection.ssl, got);
      if (step == TlsStep::done) continue;
      c.waits_for = step == TlsStep::wants_write ? POLLOUT : POLLIN;
      if (step == TlsStep::wants_read || step == TlsStep::wants_write) return Outcome::waits;
      why = tls_failure(c.connection.ssl);
      return Outcome::refused;
    }
    if (c.wanted > kFirstWordsHeader) break;
    const size_t size = c.frame[0] | size_t{c.frame[1]} << 8 | size_t{c.frame[2]} << 16 | size_t{c.frame[3]} << 24;
    if (size == 0 || size > kMaxFirstWords) {
      why = "its first words make no sense";
      return Outcome::refused;
    }
    c.wanted += size;
  }
  auto words = decode<FirstWords>(std::span(c.frame).subspan(kFirstWordsHeader));
  if (!words || !same_secret(words->token, token_)) {
    why = words ? "it does not know the join token" : "its first words make no sense";
    return Outcome::refused;
  }
  note_ends(c.connection);
  callbacks_.admitted(std::move(c.connection), std::move(words->words));
  return Outcome::admitted;
}

void TlsListener::refuse(const std::string& address, const std::string& why) {
  ++refused_;
  const auto now = Clock::now();
  if (now < next_refusal_ || !callbacks_.refused) return;
  next_refusal_ = now + kRefusalPause;
  const std::string whom = address.empty() ? "a connection of another host" : "a connection of " + address;
  const std::string more = refused_ > 1 ? fmt::format(" (and {} others before)", refused_ - 1) : "";
  refused_ = 0;
  callbacks_.refused(fmt::format("{} was refused: {}{}", whom, why, more));
}

}  // namespace lorikeet::comm
