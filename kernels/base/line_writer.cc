#include "kernels/base/line_writer.h"

#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace lorikeet {

bool PatientWriter::takes_bytes(int descriptor) {
  pollfd state{descriptor, POLLOUT, 0};
  int ready = 0;
  do {
    ready = poll(&state, 1, reader_rests_ ? 0 : static_cast<int>(patience_.count()));
  } while (ready < 0 && errno == EINTR);
  reader_rests_ = ready == 0;
  return ready > 0 && (state.revents & POLLNVAL) == 0;
}

size_t PatientWriter::write(int descriptor, std::string_view text) {
  std::string_view rest = text;
  while (!rest.empty()) {
    // A pipe that is writable takes this much without making anybody wait.
    const std::string_view piece = rest.substr(0, PIPE_BUF);
    if (!takes_bytes(descriptor)) break;
    const ssize_t written = ::write(descriptor, piece.data(), piece.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) break;
    rest.remove_prefix(static_cast<size_t>(written));
  }
  return text.size() - rest.size();
}

void LineWriter::write(std::string line) {
  rest_.erase(0, writer_.write(descriptor_, rest_));
  if (!rest_.empty()) return;
  line += '\n';
  const size_t written = writer_.write(descriptor_, line);
  if (written > 0) rest_ = std::move(line).substr(written);
}

}  // namespace lorikeet
