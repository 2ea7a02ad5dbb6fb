#include "comm/cluster/tls_stream.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>

namespace lorikeet::comm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kAtOnce = 64 << 10;  // bytes of one call

}  // namespace

void TlsStream::end() const {
  shutdown(connection_.socket.get(), SHUT_RDWR);
}

Result<void> TlsStream::write_all(std::span<const uint8_t> bytes) {
  SSL* ssl = connection_.ssl.get();
  while (!bytes.empty()) {
    int count = 0;
    const auto write = [&] {
      return count = SSL_write(ssl, bytes.data(), static_cast<int>(std::min(bytes.size(), kAtOnce)));
    };
    if (auto ok = finish_tls(connection_, Clock::now() + patience_, write); !ok) return ok;
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return {};
}

Result<void> TlsStream::read_all(std::span<uint8_t> bytes) {
  SSL* ssl = connection_.ssl.get();
  while (!bytes.empty()) {
    int count = 0;
    const auto read = [&] {
      return count = SSL_read(ssl, bytes.data(), static_cast<int>(std::min(bytes.size(), kAtOnce)));
    };
    if (auto ok = finish_tls(connection_, Clock::now() + patience_, read); !ok) return ok;
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return {};
}

Result<void> TlsStream::send(std::span<const uint8_t> frame) {
  const size_t size = frame.size();
  const std::array<uint8_t, 4> head = {static_cast<uint8_t>(size), static_cast<uint8_t>(size >> 8),
                                       static_cast<uint8_t>(size >> 16), static_cast<uint8_t>(size >> 24)};
  if (auto ok = write_all(head); !ok) return ok;
  return write_all(frame);
}

Result<std::vector<uint8_t>> TlsStream::receive(size_t most) {
  std::array<uint8_t, 4> head{};
  if (auto ok = read_all(head); !ok) return tl::unexpected(ok.error());
  const size_t size = head[0] | size_t{head[1]} << 8 | size_t{head[2]} << 16 | size_t{head[3]} << 24;
  if (size > most) return fail("it says {} bytes at once, where {} are the most", size, most);
  std::vector<uint8_t> frame;
  while (frame.size() < size) {
    const size_t had = frame.size();
    frame.resize(had + std::min(size - had, kAtOnce));
    if (auto ok = read_all(std::span(frame).subspan(had)); !ok) return tl::unexpected(ok.error());
  }
  return frame;
}

}  // namespace lorikeet::comm
