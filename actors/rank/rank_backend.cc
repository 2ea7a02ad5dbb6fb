#include "actors/rank/rank_backend.h"

#include <chrono>
#include <utility>
#include <vector>

namespace lorikeet::actors {
namespace {

constexpr std::chrono::milliseconds kMeeting{30'000};  // as of the collectives

}  // namespace

int32_t ranks_on_host(comm::Rendezvous& store, const std::string& prefix, int32_t rank, int32_t ranks,
                      const RankPlace& place) {
  if (place.host < 0 || ranks == 1) return ranks;
  const auto key = [&](int32_t of) { return prefix + "host" + std::to_string(of); };
  const std::string number = std::to_string(place.host);
  const std::vector<uint8_t> own(number.begin(), number.end());
  store.set(key(rank), own);
  int32_t count = 1;
  for (int32_t other = 0; other < ranks; ++other) {
    if (other != rank && store.get(key(other), kMeeting) == own) ++count;
  }
  return count;
}

Result<std::shared_ptr<RankBackend>> make_rank_backend(const ServerOptions& options, int32_t rank, RankMemory memory,
                                                       const RankPlace& place) {
  if (options.device == "cpu") return make_cpu_backend(options, rank, std::move(memory), place);
#ifdef LORIKEET_HAVE_CUDA
  if (options.device == "cuda") return make_cuda_backend(options, rank, std::move(memory), place);
#endif
  return fail("device {} is not served by this build", options.device);
}

}  // namespace lorikeet::actors
