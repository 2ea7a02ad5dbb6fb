#include "kernels/base/console.h"

#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

namespace lorikeet {
namespace {

constexpr int kPatienceMs = 1000;

// Of the process, like standard error is.
std::atomic<bool> reader_sleeps{false};

bool takes_bytes(int descriptor) {
  pollfd state{descriptor, POLLOUT, 0};
  int ready = 0;
  do {
    ready = poll(&state, 1, reader_sleeps ? 0 : kPatienceMs);
  } while (ready < 0 && errno == EINTR);
  reader_sleeps = ready == 0;
  return ready > 0 && (state.revents & POLLNVAL) == 0;
}

}  // namespace

void say_line(int descriptor, std::string line) {
  line += '\n';
  say_text(descriptor, line);
}

void say_text(int descriptor, std::string_view text) {
  for (std::string_view rest = text; !rest.empty();) {
    // A pipe that is writable takes this much without making anybody wait.
    const std::string_view piece = rest.substr(0, PIPE_BUF);
    if (!takes_bytes(descriptor)) return;
    const ssize_t written = write(descriptor, piece.data(), piece.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    rest.remove_prefix(static_cast<size_t>(written));
  }
}

Result<void> write_text(std::FILE* file, std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), file) != text.size() || std::fflush(file) != 0) {
    return fail("the output cannot be written: {}", std::strerror(errno));
  }
  return {};
}

}  // namespace lorikeet
