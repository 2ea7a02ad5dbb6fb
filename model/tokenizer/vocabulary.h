// The tokens of a byte-level BPE vocabulary: id -> bytes and bytes -> id.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/error.h"

namespace lorikeet::model {

// Threads: const methods from any number of threads at once.
class Vocabulary {
 public:
  static constexpr int32_t kMaxId = (1 << 22) - 1;  // what a file may name before any table is sized by it

  // Ids and bytes must be new; bytes must not be empty.
  Result<void> add(int32_t id, std::string_view bytes);

  int32_t find(std::string_view bytes) const;                           // -1: no such token
  std::string_view bytes_of(int32_t id) const;                          // empty: no such token
  int32_t size() const { return static_cast<int32_t>(spans_.size()); }  // largest id + 1

 private:
  struct Span {
    uint32_t offset = 0, length = 0;
  };

  size_t slot_of(std::string_view bytes) const;  // where bytes are in index_, or would be put
  void grow_index();

  std::string blob_;            // all tokens' bytes
  std::vector<Span> spans_;     // by id; length 0: no token has this id
  std::vector<int32_t> index_;  // open addressing over the bytes' hash, a power of two long; -1: free
  size_t count_ = 0;
};

}  // namespace lorikeet::model
