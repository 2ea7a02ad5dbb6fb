// Byte-pair encoding of one piece of text: start from its bytes' tokens, and as long as two neighbours can be merged,
// merge the pair of lowest rank, the leftmost of equals. Source: Sennrich et al. 2016; ranks and ids from the
// checkpoint's files.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <string_view>
#include <vector>

#include "kernels/base/error.h"
#include "model/tokenizer/vocabulary.h"

namespace lorikeet::model {

struct Merge {
  int32_t left = 0, right = 0;  // token ids
  int32_t merged = 0;           // the id of left's bytes followed by right's
  int32_t rank = 0;             // lower merges first
};

// What one thread needs to encode: a cache of pieces met before (bounded, 2 MiB) and working memory.
class BpeScratch {
 public:
  BpeScratch();
  ~BpeScratch();

 private:
  friend class Bpe;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Threads: const methods from any number of threads at once, each with a scratch of its own.
class Bpe {
 public:
  // whole_piece_first: a piece that is a token becomes it without merging (tiktoken; tokenizer.json's ignore_merges).
  // Of merges with the same pair the last counts. Bytes that have no token are left out of what is encoded, as the
  // reference does; Qwen's vocabularies have all 256. Fails if a merge's id is not the vocabulary's.
  static Result<Bpe> create(std::shared_ptr<const Vocabulary> vocabulary, const std::vector<Merge>& merges,
                            bool whole_piece_first);

  // Appends the ids of piece (not empty). A scratch must only ever be used with one Bpe.
  void encode(std::string_view piece, BpeScratch* scratch, std::vector<int32_t>* ids) const;

 private:
  static constexpr int32_t kNoRank = std::numeric_limits<int32_t>::max();
  struct Ranked {  // what a pair merges into; kNoRank: it does not
    int32_t rank = kNoRank, merged = -1;
  };
  struct Slot {  // of the merge table
    uint64_t pair = kFree;
    Ranked merge;
  };
  static constexpr uint64_t kFree = ~uint64_t{0};  // no pair: ids are 22 bits

  Ranked find_merge(int32_t left, int32_t right) const;
  size_t slot_of(uint64_t pair) const;
  void fill_byte_pairs();
  void find_whole_tokens(bool whole_piece_first);
  void merge(std::string_view piece, BpeScratch::Impl* scratch, std::vector<int32_t>* ids) const;
  void merge_short(std::string_view piece, std::vector<int32_t>* ids) const;
  void merge_long(std::string_view piece, BpeScratch::Impl* scratch, std::vector<int32_t>* ids) const;

  std::shared_ptr<const Vocabulary> vocabulary_;
  std::array<int32_t, 256> byte_ids_{};  // -1: the byte has no token
  std::vector<Ranked> byte_pairs_;       // find_merge of two bytes' tokens, at 256 * left byte + right byte
  std::vector<Slot> merges_;             // open addressing, a power of two long
  int hash_shift_ = 0;
  std::vector<bool> whole_;  // by id: a piece with its bytes becomes it alone
};

}  // namespace lorikeet::model
