#include "model/tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>

namespace lorikeet::model {
namespace {

constexpr size_t kShortPiece = 64;  // bytes; up to here scanning all ranks for the least is faster than a heap

// One line of the cache: a piece and its ids, one cache line long.
struct alignas(64) CachedPiece {
  static constexpr size_t kMaxBytes = 30, kMaxIds = 8;
  uint8_t length = 0;  // of the piece; 0: free
  uint8_t count = 0;   // of its ids
  char bytes[kMaxBytes];
  int32_t ids[kMaxIds];
};
static_assert(sizeof(CachedPiece) == 64);
constexpr int kCacheLinesLog2 = 15;

// Mixes the piece's first and last 8 bytes and its length: cheap, and two words of a language seldom share all three.
uint64_t hash_of(std::string_view piece) {
  uint64_t head = 0, middle = 0, tail = 0;
  if (piece.size() >= 8) {
    std::memcpy(&head, piece.data(), 8);
    std::memcpy(&tail, piece.data() + piece.size() - 8, 8);
    if (piece.size() > 16) std::memcpy(&middle, piece.data() + piece.size() / 2 - 4, 8);
  } else {
    std::memcpy(&head, piece.data(), piece.size());
  }
  uint64_t hash = (head ^ std::rotl(middle, 29) ^ piece.size()) * 0x9E3779B97F4A7C15u;
  hash = (hash ^ (hash >> 32) ^ tail) * 0xD6E8FEB86659FD93u;
  return hash;
}

}  // namespace

struct BpeScratch::Impl {
  struct Symbol {  // of a long piece: a linked list over its live symbols
    int32_t id;
    int32_t previous, next;  // positions; -1: none
  };
  struct Candidate {
    int32_t rank, position;
    int32_t left, right;  // the pair it was found for: stale once either has merged
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  CachedPiece* line_of(std::string_view piece) { return &cache[hash_of(piece) >> (64 - kCacheLinesLog2)]; }

  std::vector<CachedPiece> cache = std::vector<CachedPiece>(size_t{1} << kCacheLinesLog2);
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

BpeScratch::BpeScratch() : impl_(std::make_unique<Impl>()) {}
BpeScratch::~BpeScratch() = default;

Result<Bpe> Bpe::create(std::shared_ptr<const Vocabulary> vocabulary, const std::vector<Merge>& merges,
                        bool whole_piece_first) {
  Bpe bpe;
  for (int byte = 0; byte < 256; ++byte) {
    const char character = static_cast<char>(byte);
    bpe.byte_ids_[byte] = vocabulary->find(std::string_view(&character, 1));
  }
  const size_t capacity = std::bit_ceil(std::max<size_t>(16, merges.size() + merges.size() / 2));
  bpe.merges_.resize(capacity);
  bpe.hash_shift_ = 64 - std::countr_zero(capacity);
  for (const Merge& merge : merges) {
    for (int32_t id : {merge.left, merge.right, merge.merged}) {
      if (vocabulary->bytes_of(id).empty()) return fail("a merge names id {}, which is no token", id);
    }
    const uint64_t pair = static_cast<uint64_t>(merge.left) << 32 | static_cast<uint32_t>(merge.right);
    bpe.merges_[bpe.slot_of(pair)] = {pair, {merge.rank, merge.merged}};
  }
  bpe.vocabulary_ = std::move(vocabulary);
  bpe.fill_byte_pairs();
  bpe.find_whole_tokens(whole_piece_first);
  return bpe;
}

void Bpe::fill_byte_pairs() {
  byte_pairs_.resize(256 * 256);
  for (size_t left = 0; left < 256; ++left) {
    for (size_t right = 0; right < 256; ++right) {
      if (byte_ids_[left] >= 0 && byte_ids_[right] >= 0) {
        byte_pairs_[256 * left + right] = find_merge(byte_ids_[left], byte_ids_[right]);
      }
    }
  }
}

// Most words of a text are tokens, and most tokens are what merging their own bytes gives, though no format says that
// all are: finding out once spares merging those words.
void Bpe::find_whole_tokens(bool whole_piece_first) {
  whole_.resize(static_cast<size_t>(vocabulary_->size()), whole_piece_first);
  if (whole_piece_first) return;
  BpeScratch scratch;
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < vocabulary_->size(); ++id) {
    const std::string_view bytes = vocabulary_->bytes_of(id);
    if (bytes.empty()) continue;
    ids.clear();
    merge(bytes, scratch.impl_.get(), &ids);
    whole_[id] = ids.size() == 1 && ids[0] == id;
  }
}

size_t Bpe::slot_of(uint64_t pair) const {
  const size_t mask = merges_.size() - 1;
  size_t slot = ((pair ^ (pair >> 29)) * 0x9E3779B97F4A7C15u) >> hash_shift_;
  while (merges_[slot].pair != kFree && merges_[slot].pair != pair) slot = (slot + 1) & mask;
  return slot;
}

Bpe::Ranked Bpe::find_merge(int32_t left, int32_t right) const {
  return merges_[slot_of(static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right))].merge;
}

void Bpe::encode(std::string_view piece, BpeScratch* scratch, std::vector<int32_t>* ids) const {
  if (piece.size() == 1) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(piece[0])];
    if (id >= 0) ids->push_back(id);
    return;
  }
  CachedPiece* line = nullptr;
  if (piece.size() <= CachedPiece::kMaxBytes) {
    line = scratch->impl_->line_of(piece);
    if (line->length == piece.size() && std::memcmp(line->bytes, piece.data(), piece.size()) == 0) {
      ids->insert(ids->end(), line->ids, line->ids + line->count);
      return;
    }
  }
  const size_t before = ids->size();
  const int32_t id = vocabulary_->find(piece);
  if (id >= 0 && whole_[id]) {
    ids->push_back(id);
  } else {
    merge(piece, scratch->impl_.get(), ids);
  }
  const size_t count = ids->size() - before;
  if (!line || count > CachedPiece::kMaxIds) return;
  line->length = static_cast<uint8_t>(piece.size());
  line->count = static_cast<uint8_t>(count);
  std::memcpy(line->bytes, piece.data(), piece.size());
  std::copy_n(ids->end() - static_cast<ptrdiff_t>(count), count, line->ids);
}

void Bpe::merge(std::string_view piece, BpeScratch::Impl* scratch, std::vector<int32_t>* ids) const {
  if (piece.size() <= kShortPiece) return merge_short(piece, ids);
  merge_long(piece, scratch, ids);
}

void Bpe::merge_short(std::string_view piece, std::vector<int32_t>* ids) const {
  // symbols[i] and symbols[i + 1] merge with ranks[i] into merged[i].
  int32_t symbols[kShortPiece], ranks[kShortPiece], merged[kShortPiece];
  size_t count = 0;
  unsigned char previous = 0;
  for (const char character : piece) {
    const auto byte = static_cast<unsigned char>(character);
    if (byte_ids_[byte] < 0) continue;
    if (count > 0) {
      const Ranked& pair = byte_pairs_[256u * previous + byte];
      ranks[count - 1] = pair.rank;
      merged[count - 1] = pair.merged;
    }
    symbols[count++] = byte_ids_[byte];
    previous = byte;
  }
  auto look_up = [&](size_t i) {
    const Ranked pair = find_merge(symbols[i], symbols[i + 1]);
    ranks[i] = pair.rank;
    merged[i] = pair.merged;
  };
  while (count > 1) {
    const size_t best = static_cast<size_t>(std::min_element(ranks, ranks + count - 1) - ranks);
    if (ranks[best] == kNoRank) break;
    symbols[best] = merged[best];
    --count;
    for (size_t i = best + 1; i < count; ++i) symbols[i] = symbols[i + 1];
    for (size_t i = best; i + 1 < count; ++i) {
      ranks[i] = ranks[i + 1];
      merged[i] = merged[i + 1];
    }
    if (best > 0) look_up(best - 1);
    if (best + 1 < count) look_up(best);
  }
  ids->insert(ids->end(), symbols, symbols + count);
}

void Bpe::merge_long(std::string_view piece, BpeScratch::Impl* scratch, std::vector<int32_t>* ids) const {
  auto& symbols = scratch->symbols;
  auto& heap = scratch->heap;
  symbols.clear();
  symbols.reserve(piece.size());
  heap.clear();
  for (const char byte : piece) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(byte)];
    const int32_t position = static_cast<int32_t>(symbols.size());
    if (id >= 0) symbols.push_back({id, position - 1, position + 1});
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;
  const int32_t size = static_cast<int32_t>(symbols.size());
  auto candidate_at = [&](int32_t position) -> BpeScratch::Impl::Candidate {
    const int32_t left = symbols[position].id, right = symbols[symbols[position].next].id;
    return {find_merge(left, right).rank, position, left, right};
  };
  for (int32_t i = 0; i + 1 < size; ++i) {
    if (const auto candidate = candidate_at(i); candidate.rank != kNoRank) heap.push_back(candidate);
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  auto push_candidate = [&](int32_t position) {
    const auto candidate = candidate_at(position);
    if (candidate.rank == kNoRank) return;
    heap.push_back(candidate);
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const auto candidate = heap.back();
    heap.pop_back();
    auto& left = symbols[candidate.position];
    // A symbol that was merged into its left neighbour has id -1.
    if (left.id != candidate.left || left.next < 0 || symbols[left.next].id != candidate.right) continue;
    auto& right = symbols[left.next];
    left.id = find_merge(candidate.left, candidate.right).merged;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) {
      symbols[left.next].previous = candidate.position;
      push_candidate(candidate.position);
    }
    if (left.previous >= 0) push_candidate(left.previous);
  }
  for (int32_t i = 0; i >= 0; i = symbols[i].next) ids->push_back(symbols[i].id);
  if (symbols.capacity() > (1 << 16)) {  // do not keep what one huge piece needed
    symbols = {};
    heap = {};
  }
}

}  // namespace lorikeet::model
