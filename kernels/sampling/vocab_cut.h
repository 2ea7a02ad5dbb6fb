// Where rows of logits are cut: which tokens top_k, top_p and min_p keep for sure, which lie so near to the cut that
// they must be looked at one by one, and which are out. The first half of a filtered draw (kernels/sampling/sampling_cuda.h)
// and of the lists of best tokens (kernels/sampling/logprobs_cuda.h), used by these alone.
//
// Many CTAs share a row. Two kernels: the row's best value and its range; then a histogram of the distances from the
// best, of tokens where a number of them decides and of their probability where their sum does, in integers, so that
// nothing depends on the order in which CTAs arrive. The bin in which the count or the sum is reached holds a few
// hundred of 150,000 tokens as a rule; a third kernel, the caller's, looks into it.
//
// Where a number of tokens decides and parts of the vocabulary are more than that, there is no histogram: as many tokens
// as asked for are no worse than the last of that many parts' best ones, and few others are.
//
// Between steps gigabytes of weights pass the L2, so that the kernels' code comes from memory each time: it is kept short,
// in loops over a few tokens of a thread.
//
// Where ranks have a part each, the last CTA of a row tells the other ranks' what its part gave, at the end of each of
// the three kernels, and goes on with what all have.
#pragma once

#include <cstdint>

#include "kernels/base/device.h"
#include "kernels/peer/peer_sum_cuda.h"
#include "kernels/sampling/logprobs_cuda.h"
#include "kernels/sampling/sampling_cuda.h"

namespace lorikeet::kernels {

inline constexpr int32_t kCutBins = 1024;
inline constexpr int32_t kCutListed = 4096;  // tokens about the cut that can be put in order
inline constexpr int32_t kCutBatch = 4;      // tokens that a thread has in hand at a time
inline constexpr int32_t kCutThreads = 256;
inline constexpr int32_t kCutWarps = kCutThreads / 32;
inline constexpr int32_t kCutLeastChunk = kCutBatch * kCutThreads;  // tokens of a CTA whose threads have one batch
inline constexpr int32_t kCutCountedBatches = 4;                    // of a thread that counts, at most
inline constexpr int32_t kCutRows = 64;                             // that are cut at a time
static_assert(kCutRows <= kMostPeerRows && 2 * kCutBins <= kMostPeerRowWords);

// A row's cut. Values are logits divided by the temperature.
struct RowCut {
  Candidate best;            // without a token: no logit is a number, and nothing else counts
  float bins_per_nat;        // bin of a value: its distance from the best, times this
  float least;               // smaller values are out
  float least_logit;         // smaller logits are, whatever their quotient: saves a division
  uint32_t floor;            // ordered_key of a noisy value of a token that is kept: rises while tokens are drawn from
  int32_t first_bin;         // tokens of the bins before it are kept
  int32_t last_bin;          // tokens of the bins behind it are out; none: before first_bin
  int32_t listed;            // tokens between, put into the list as far as it goes
  unsigned long long above;  // probability of the bins before first_bin, where top_p decides alone
  unsigned long long total;  // of all that min_p leaves, likewise
};

// In device memory, zeroed when it is made; arrivals are 0 between launches.
struct CutWorkspace {
  RowCut* cuts = nullptr;                   // [kCutRows]
  int32_t* arrivals = nullptr;              // [kCutRows]: CTAs that are done
  unsigned long long* histogram = nullptr;  // [kCutRows, kCutBins]
  Candidate* list = nullptr;                // [kCutRows, kCutListed]
  Candidate* of_chunk = nullptr;            // [kCutRows, chunks]
  float* least_of_chunk = nullptr;          // [kCutRows, chunks]
  float* best_of_part = nullptr;  // [kCutRows, parts]: logits; parts are chunks, or what a warp has of a chunk

  CutWorkspace() = default;
  CutWorkspace(void* memory, int32_t vocab_size);
};
uint64_t cut_workspace_bytes(int32_t vocab_size);

// Rows of logits in pieces, and who asks: draws or lists.
struct CutArgs {
  const float* logits = nullptr;  // [pieces, rows, stride]
  int64_t piece_stride = 0;
  int64_t stride = 0;
  int32_t first_logits_row = 0;
  int32_t pieces = 1;
  int32_t begins[kMaxVocabPieces + 1] = {};
  const DrawRow* draws = nullptr;     // [num_rows]; or
  const LogprobRow* lists = nullptr;  // [num_rows]
  int32_t num_rows = 0;               // at most kCutRows
  CutWorkspace workspace;
  PeerGroup peers;              // of one rank: nobody else has a part of these rows
  int32_t tokens_of_peers = 0;  // where others have: of all parts

  constexpr bool shared() const { return peers.ranks > 1; }
  int32_t first_token() const { return begins[0]; }
  int32_t vocab_size() const { return begins[pieces] - begins[0]; }
  // Of all ranks' parts.
  constexpr int32_t all_tokens() const { return shared() ? tokens_of_peers : begins[pieces] - begins[0]; }
  // A thread's batches: as many as let all CTAs run at once, since each has a beginning and an end that take longer than a
  // batch. A chunk lies in one piece.
  int32_t batches = 1;
  constexpr int32_t chunks_of(int32_t piece) const {
    return (begins[piece + 1] - begins[piece] + batches * kCutLeastChunk - 1) / (batches * kCutLeastChunk);
  }
  unsigned chunks() const {
    int32_t sum = 0;
    for (int32_t piece = 0; piece < pieces; piece++) sum += chunks_of(piece);
    return static_cast<unsigned>(sum);
  }
  void choose_batches();  // behind all else
};

void cut_vocab(const CutArgs& args, const Stream& stream);

}  // namespace lorikeet::kernels
