#include "comm/cluster/tls_relay.h"

#include <openssl/err.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>

namespace lorikeet::comm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLinger{1'000};
constexpr int kTurns = 8;  // of one connection before the others have theirs

// Bytes on their way. Filled when it is empty.
struct Buffer {
  std::vector<uint8_t> bytes = std::vector<uint8_t>(TlsRelay::kRelayBytes);
  size_t begin = 0, end = 0;

  bool empty() const { return begin == end; }
  size_t size() const { return end - begin; }
  void filled(size_t count) {
    begin = 0;
    end = count;
  }
};

}  // namespace

struct TlsRelay::Link {
  Id id = 0;
  TlsConnection tls;
  Descriptor plain;
  Buffer in, out;  // from the network, to it
  bool tls_ended = false, plain_ended = false;
  bool read_wants_write = false, write_wants_read = false;
  std::optional<Clock::time_point> ended;
  bool ready = true;  // something may be done for it

  // False: it is over.
  bool get_on(Clock::time_point now) {
    ready = true;  // there is more than its turns were enough for
    for (int turn = 0; turn < kTurns && ready; ++turn) {
      ready = false;
      if (!read_tls(ready) || !write_plain(ready) || !read_plain(ready) || !write_tls(ready)) return false;
    }
    if (tls_ended && in.empty()) return false;
    if (plain_ended && out.empty()) {
      SSL_shutdown(tls.ssl.get());
      return false;
    }
    if ((tls_ended || plain_ended) && !ended) ended = now;
    return !ended || now - *ended < kLinger;
  }

  bool read_tls(bool& moved) {
    if (!in.empty() || tls_ended) return true;
    ERR_clear_error();
    const int got = SSL_read(tls.ssl.get(), in.bytes.data(), static_cast<int>(in.bytes.size()));
    const TlsStep step = tls_step(tls.ssl, got);
    read_wants_write = step == TlsStep::wants_write;
    if (step == TlsStep::done) in.filled(static_cast<size_t>(got));
    moved |= step == TlsStep::done;
    tls_ended = step == TlsStep::ended;
    return step != TlsStep::failed;
  }

  bool write_tls(bool& moved) {
    if (out.empty()) return true;
    ERR_clear_error();
    const int sent = SSL_write(tls.ssl.get(), out.bytes.data() + out.begin, static_cast<int>(out.size()));
    const TlsStep step = tls_step(tls.ssl, sent);
    write_wants_read = step == TlsStep::wants_read;
    if (step == TlsStep::done) out.begin += static_cast<size_t>(sent);
    moved |= step == TlsStep::done;
    return step != TlsStep::failed && step != TlsStep::ended;
  }

  bool read_plain(bool& moved) {
    if (!out.empty() || plain_ended) return true;
    const ssize_t got = recv(plain.get(), out.bytes.data(), out.bytes.size(), MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    plain_ended = got == 0;
    out.filled(static_cast<size_t>(got));
    moved |= got > 0;
    return true;
  }

  bool write_plain(bool& moved) {
    if (in.empty()) return true;
    const ssize_t sent = send(plain.get(), in.bytes.data() + in.begin, in.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EPIPE) {  // nobody reads it any more; what was said before that still goes out
      in.filled(0);
      return true;
    }
    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    in.begin += static_cast<size_t>(sent);
    moved |= sent > 0;
    return true;
  }

  // What it waits for: of the network, of the plain side. Who waits for nothing is not listened to, since poll(2) tells
  // of an end again and again.
  std::array<pollfd, 2> waits() const {
    const bool reads = in.empty() && !tls_ended, writes = !out.empty();
    const bool wants_in = reads || (writes && write_wants_read);
    const bool wants_out = (writes && !write_wants_read) || (reads && read_wants_write);
    const auto tls_events = static_cast<short>((wants_in ? POLLIN : 0) | (wants_out ? POLLOUT : 0));
    const auto plain_events =
        static_cast<short>((out.empty() && !plain_ended ? POLLIN : 0) | (in.empty() ? 0 : POLLOUT));
    return {pollfd{tls_events != 0 ? tls.socket.get() : -1, tls_events, 0},
            pollfd{plain_events != 0 ? plain.get() : -1, plain_events, 0}};
  }
};

TlsRelay::TlsRelay(Descriptor wake) : wake_(std::move(wake)) {
  thread_ = std::thread([this] { run(); });
}

Result<std::unique_ptr<TlsRelay>> TlsRelay::start() {
  Descriptor wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return fail("no event descriptor: {}", std::strerror(errno));
  return std::unique_ptr<TlsRelay>(new TlsRelay(std::move(wake)));
}

TlsRelay::~TlsRelay() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake();
  thread_.join();
}

TlsRelay::Id TlsRelay::add(TlsConnection connection, Descriptor plain) {
  auto link = std::make_unique<Link>();
  link->tls = std::move(connection);
  link->plain = std::move(plain);
  const std::lock_guard lock(mutex_);
  const Id id = link->id = ++last_id_;
  fresh_.push_back(std::move(link));
  wake();
  return id;
}

void TlsRelay::cut(Id id) {
  const std::lock_guard lock(mutex_);
  cut_.insert(id);
  wake();
}

Result<std::pair<Descriptor, Descriptor>> TlsRelay::make_ends() {
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail("no socket pair: {}", std::strerror(errno));
  }
  return std::pair(Descriptor(ends[0]), Descriptor(ends[1]));
}

void TlsRelay::wake() const {
  const uint64_t one = 1;
  (void)!write(wake_.get(), &one, sizeof(one));  // full: it is awake
}

void TlsRelay::run() {
  std::vector<std::unique_ptr<Link>> links;
  std::vector<pollfd> waits;
  for (;;) {
    std::unordered_set<Id> cut;
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return;
      cut.swap(cut_);
      for (auto& link : fresh_) links.push_back(std::move(link));
      fresh_.clear();
    }
    const auto now = Clock::now();
    bool lingers = false, hurries = false;
    const auto is_over = [&](const std::unique_ptr<Link>& link) {
      if (cut.count(link->id) > 0) return true;
      if ((link->ready || link->ended) && !link->get_on(now)) return true;
      lingers |= link->ended.has_value();
      hurries |= link->ready;
      return false;
    };
    links.erase(std::remove_if(links.begin(), links.end(), is_over), links.end());
    waits.assign({{wake_.get(), POLLIN, 0}});
    for (const auto& link : links) {
      const auto both = link->waits();
      waits.insert(waits.end(), both.begin(), both.end());
    }
    const int patience = hurries ? 0 : lingers ? static_cast<int>(kLinger.count()) / 4 : -1;
    if (poll(waits.data(), waits.size(), patience) < 0) continue;
    for (size_t i = 0; i < links.size(); ++i) {
      links[i]->ready |= waits[1 + 2 * i].revents != 0 || waits[2 + 2 * i].revents != 0;
    }
    uint64_t woken = 0;
    if (waits[0].revents != 0) (void)!read(wake_.get(), &woken, sizeof(woken));
  }
}

}  // namespace lorikeet::comm
