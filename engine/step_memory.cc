#include "engine/step_memory.h"

#include <malloc.h>

namespace lorikeet::engine {

void keep_step_memory() {
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
  mallopt(M_TRIM_THRESHOLD, 16 << 20);
}

}  // namespace lorikeet::engine
