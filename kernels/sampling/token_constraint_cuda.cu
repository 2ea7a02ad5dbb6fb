#include <algorithm>

#include "kernels/base/cuda_check.h"
#include "kernels/sampling/token_constraint_cuda.h"

namespace lorikeet::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kChunk = 4096;  // tokens of a block

// CTA (chunk, row). A token's bits and biases are applied by the CTA of its chunk, one after the other.
//   grid     (vocabulary / 4,096, rows that are constrained), 256 threads, 24 registers, no shared memory; launched in the ordinary way
__global__ void __launch_bounds__(kThreads) constrain_logits(ConstrainArgs args) {
  const ConstrainedRow row = args.rows[blockIdx.y];
  float* logits = args.shard.logits + row.logits_row * args.shard.stride;
  const int begin = blockIdx.x * kChunk;
  const int end = min(begin + kChunk, args.shard.vocab_size);
  if (row.mask_words > 0) {
    const uint32_t* mask = args.masks + row.mask_begin;
    for (int column = begin + static_cast<int>(threadIdx.x); column < end; column += kThreads) {
      const int token = args.shard.vocab_begin + column;
      if (token / 32 >= row.mask_words || (mask[token / 32] >> token % 32 & 1U) == 0) logits[column] = NAN;
    }
    __syncthreads();
  }
  const int last_token = args.resolved[row.last_token];
  for (int i = row.biases_begin + static_cast<int>(threadIdx.x); i < row.biases_end; i += kThreads) {
    const int token = args.biases[i].token_id;
    const int column = token - args.shard.vocab_begin;
    if (column < begin || column >= end) continue;
    if (i > row.biases_begin && args.biases[i - 1].token_id == token) continue;  // the first one takes all of a token's
    float logit = logits[column];
    args.saved[i] = logit;
    for (int j = i; j < row.biases_end && args.biases[j].token_id == token; j++) {
      const TokenBias bias = args.biases[j];
      if (bias.after >= 0 && bias.after != last_token) continue;
      logit = bias.bias == -INFINITY ? NAN : logit + bias.bias;
    }
    logits[column] = logit;
  }
}

}  // namespace

void constrain_logits_cuda(const ConstrainArgs& args, const Stream& stream) {
  if (args.num_rows == 0 || args.shard.vocab_size == 0) return;
  const auto chunks = static_cast<unsigned>((args.shard.vocab_size + kChunk - 1) / kChunk);
  constrain_logits<<<dim3(chunks, static_cast<unsigned>(args.num_rows)), kThreads, 0, stream.handle()>>>(args);
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

}  // namespace lorikeet::kernels
