#include <glog/logging.h>

#include "kernels/layer/embedding.h"

namespace lorikeet::kernels {

void embedding_cpu(const DenseWeight& table, const int32_t* ids, int32_t tokens, float* out) {
  for (int32_t t = 0; t < tokens; ++t) {
    CHECK_GE(ids[t], 0);
    CHECK_LT(ids[t], table.n);
    const void* row = table.row(ids[t]);
    float* to = out + static_cast<int64_t>(t) * table.k;
    for (int32_t i = 0; i < table.k; ++i) to[i] = load_float(row, table.dtype, static_cast<size_t>(i));
  }
}

}  // namespace lorikeet::kernels
