#include "kernels/base/anonymous_file.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <cerrno>
#include <cstring>

namespace lorikeet::kernels {
namespace {

// Hardened systems refuse memory that could be executed; older kernels do not know the flag.
#ifndef MFD_NOEXEC_SEAL
constexpr unsigned MFD_NOEXEC_SEAL = 0x0008U;
#endif

}  // namespace

Result<Descriptor> make_anonymous_file(const std::string& name) {
  // One that grows past the limit ends the process by a signal.
  rlimit limit{};
  if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur != RLIM_INFINITY) {
    return fail("no memory that outlives a process: the size of files is limited (ulimit -f)");
  }
  constexpr unsigned kFlags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  int made = memfd_create(name.c_str(), kFlags | MFD_NOEXEC_SEAL);
  if (made < 0 && errno == EINVAL) made = memfd_create(name.c_str(), kFlags);
  if (made < 0) return fail("no memory that outlives a process: memfd_create: {}", std::strerror(errno));
  return Descriptor(made);
}

}  // namespace lorikeet::kernels
