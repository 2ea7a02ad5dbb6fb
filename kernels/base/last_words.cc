#include "kernels/base/last_words.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

namespace lorikeet {
namespace {

constexpr int kPatienceMs = 500;
constexpr int kLastLineMs = 50;  // from the pipe to where it belongs

}  // namespace

void let_last_words_out(int descriptor) {
  struct stat status = {};
  if (fstat(descriptor, &status) != 0 || !S_ISFIFO(status.st_mode)) return;
  for (int ms = 0; ms < kPatienceMs; ++ms) {
    int bytes = 0;
    if (ioctl(descriptor, FIONREAD, &bytes) != 0 || bytes == 0) break;
    poll(nullptr, 0, 1);
  }
  poll(nullptr, 0, kLastLineMs);
}

}  // namespace lorikeet
