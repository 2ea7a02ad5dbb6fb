#include "launcher/standard_streams.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace lorikeet::launcher {

void open_closed_streams() {
  for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; ++stream) {
    // The lowest number that is free is this one.
    if (fcntl(stream, F_GETFD) == -1 && errno == EBADF) static_cast<void>(open("/dev/null", O_RDWR));
  }
}

}  // namespace lorikeet::launcher
