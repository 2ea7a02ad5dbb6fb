// Whole factors of adapters put into the layout of the device (kernels/lora/lora_layout.h), and of embeddings (rows of
// the true rank: A transposed to [vocabulary, rank], B [hidden, rank] as PEFT has it). Vectorised; on the caller's thread.
#pragma once

#include <cstdint>

#include "kernels/base/dtype.h"

namespace lorikeet::kernels::lora {

// A factor as a file has it: row-major, of F32, F16 or BF16, its rows `stride` elements apart.
struct StoredFactor {
  const void* values = nullptr;
  Dtype dtype = Dtype::f32;
  int64_t stride = 0;
};

// values[first .. first + count) of the type `from` as `to`: F32, F16 or BF16, both. Nearest, ties to even.
void convert_floats(const void* values, Dtype from, int64_t first, int64_t count, Dtype to, void* out);

// A [rank, inputs] to a_bytes(rank, inputs) of `dtype`, F16 or BF16; B [outputs, rank], whose rows follow each other, to
// b_bytes(rank, outputs). False: a value is not finite there.
bool pack_a(const StoredFactor& a, int32_t rank, int32_t inputs, Dtype dtype, uint16_t* out);
bool pack_b(const StoredFactor& b, int32_t rank, int32_t outputs, Dtype dtype, uint16_t* out);

// What a factor of an embedding takes: of A with the vocabulary as rows, of B with hidden.
uint64_t embedding_factor_bytes(int32_t rank, int32_t rows);

// Rows [first, first + count) of an embedding's A, which is [rank, vocabulary], transposed.
void pack_embedding_a(const StoredFactor& a, int32_t rank, int64_t first, int64_t count, Dtype dtype, uint16_t* out);

}  // namespace lorikeet::kernels::lora
