// Which bytes of a checkpoint's files a rank needs, for hosts that get only these.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/base/error.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/shard_plan.h"

namespace lorikeet::model {

// `count` runs of `bytes` bytes: the first at `begin` of a file, each `stride` behind the one before.
struct ByteRuns {
  uint64_t begin = 0, bytes = 0;
  uint64_t stride = 0, count = 1;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("begin", s.begin);
    visit("bytes", s.bytes);
    visit("stride", s.stride);
    visit("count", s.count);
  }
  bool operator==(const ByteRuns&) const = default;
  uint64_t total() const { return bytes * count; }
};

struct FilePart {
  std::string file;  // of the checkpoint's directory
  ByteRuns runs;
};

// What loading `rank` depends on: its part of the projections' weights and of lm_head, everything else whole; in the order
// of tensors' names. In files with the same headers, bytes outside of the parts are read, too, but may be any finite numbers,
// such as zeros.
std::vector<FilePart> parts_of_rank(const Checkpoint& checkpoint, const ShardPlan& plan, int rank);

// The same bytes in pieces of at most `most`, where a run is not longer.
std::vector<FilePart> in_pieces(const std::vector<FilePart>& parts, uint64_t most);

}  // namespace lorikeet::model
