#include "actors/wire/descriptor_reserve.h"

namespace lorikeet::actors {

Result<void> raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return {};
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_max >= kLeastDescriptors) return {};
  return fail("a process may have {} files open, {} at the least are needed (ulimit -n)", limit.rlim_max,
              kLeastDescriptors);
}

DescriptorReserve::DescriptorReserve(size_t count) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur <= 2 * count) return;
  all_ = limit.rlim_cur;
  others_ = all_ - count;
  set_limit(others_);
}

void DescriptorReserve::set_limit(rlim_t limit) {
  if (limit == RLIM_INFINITY) return;
  rlimit both{};
  if (getrlimit(RLIMIT_NOFILE, &both) != 0) return;
  both.rlim_cur = limit;
  setrlimit(RLIMIT_NOFILE, &both);
}

}  // namespace lorikeet::actors
