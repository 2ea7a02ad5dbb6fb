#include "comm/cluster/tls_dial.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "comm/cluster/first_words.h"
#include "comm/cluster/limits.h"
#include "comm/codec/codec.h"

namespace lorikeet::comm {
namespace {

using Clock = std::chrono::steady_clock;

Result<Descriptor> connect_to(const addrinfo& address, Clock::time_point until) {
  Descriptor made(socket(address.ai_family, address.ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address.ai_protocol));
  if (!made) return fail("{}", std::strerror(errno));
  if (connect(made.get(), address.ai_addr, address.ai_addrlen) != 0) {
    if (errno != EINPROGRESS) return fail("{}", std::strerror(errno));
    if (!wait_for_socket(made.get(), POLLOUT, until)) return fail("nobody answers");
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(made.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return fail("{}", std::strerror(error));
  }
  tune_socket(made.get());
  return made;
}

std::vector<uint8_t> framed(const DialOptions& options, const std::vector<uint8_t>& words) {
  const std::vector<uint8_t> encoded = encode(FirstWords{options.token, words});
  const size_t size = encoded.size();
  std::vector<uint8_t> frame = {static_cast<uint8_t>(size), static_cast<uint8_t>(size >> 8),
                                static_cast<uint8_t>(size >> 16), static_cast<uint8_t>(size >> 24)};
  frame.insert(frame.end(), encoded.begin(), encoded.end());
  return frame;
}

}  // namespace

Result<TlsConnection> dial(const TlsContext& context, const DialOptions& options, const std::vector<uint8_t>& words) {
  const auto failed = [&](const std::string& why) {
    return fail("the head at {}:{}: {}", options.host, options.port, why);
  };
  const std::vector<uint8_t> frame = framed(options, words);
  if (frame.size() > kMaxFirstWords) return failed("there is too much to say");
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(options.host.c_str(), std::to_string(options.port).c_str(), &hints, &found);
      error != 0) {
    return failed(gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);
  const auto until = Clock::now() + options.timeout;
  Result<Descriptor> socket = fail("it has no address");
  for (const addrinfo* address = found; address && !socket; address = address->ai_next) {
    socket = connect_to(*address, until);
  }
  if (!socket) return failed(socket.error().message);

  TlsConnection connection;
  connection.ssl = context.over(socket->get());
  if (!connection.ssl) return failed("there is no memory for TLS");
  connection.socket = *std::move(socket);
  SSL* ssl = connection.ssl.get();
  if (auto ok = finish_tls(connection, until, [&] { return SSL_do_handshake(ssl); }); !ok)
    return failed(ok.error().message);
  for (size_t sent = 0; sent < frame.size();) {
    int count = 0;
    const auto write = [&] {
      return count = SSL_write(ssl, frame.data() + sent, static_cast<int>(frame.size() - sent));
    };
    if (auto ok = finish_tls(connection, until, write); !ok) return failed(ok.error().message);
    sent += static_cast<size_t>(count);
  }
  note_ends(connection);
  return connection;
}

}  // namespace lorikeet::comm
