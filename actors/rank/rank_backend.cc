#include "actors/rank/rank_backend.h"

#include <utility>

namespace lorikeet::actors {

Result<std::shared_ptr<RankBackend>> make_rank_backend(const ServerOptions& options, int32_t rank, RankMemory memory,
                                                       const RankPlace& place) {
  if (options.device == "cpu") return make_cpu_backend(options, rank, std::move(memory), place);
#ifdef LORIKEET_HAVE_CUDA
  if (options.device == "cuda") return make_cuda_backend(options, rank, std::move(memory), place);
#endif
  return fail("device {} is not served by this build", options.device);
}

}  // namespace lorikeet::actors
