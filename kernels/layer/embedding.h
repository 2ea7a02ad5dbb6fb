// Rows of the embedding table.
#pragma once

#include <cstdint>

#include "kernels/dense/dense_weight.h"

namespace lorikeet::kernels {

// out [tokens, table.k] = rows ids[i] of table [vocab, hidden]; every id is in [0, table.n).
void embedding_cpu(const DenseWeight& table, const int32_t* ids, int32_t tokens, float* out);

}  // namespace lorikeet::kernels
