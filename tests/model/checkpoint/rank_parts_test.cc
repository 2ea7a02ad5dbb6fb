#include "model/checkpoint/rank_parts.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <set>

#include "tests/model/checkpoint/same_weights.h"
#include "tests/model/checkpoint/synthetic_checkpoint.h"
#include "tests/temp_dir.h"

namespace lorikeet::model {
namespace {

namespace fs = std::filesystem;
using tests::plan_of;
using tests::SyntheticCheckpoint;
using tests::SyntheticOptions;
using tests::TempDir;

std::string content_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

uint64_t total_of(const std::vector<FilePart>& parts) {
  uint64_t bytes = 0;
  for (const FilePart& part : parts) bytes += part.runs.total();
  return bytes;
}

// The checkpoint with the parts of its tensors alone; zeros in place of the rest.
void copy_parts(const fs::path& from, const fs::path& to, const std::vector<FilePart>& parts) {
  std::set<std::string> files;
  for (const FilePart& part : parts) files.insert(part.file);
  for (const auto& entry : fs::directory_iterator(from)) {
    const std::string name = entry.path().filename().string(), whole = content_of(entry.path());
    std::string copy = whole;
    if (files.count(name) > 0) {
      uint64_t header = 0;
      std::memcpy(&header, whole.data(), sizeof(header));
      std::fill(copy.begin() + 8 + static_cast<std::ptrdiff_t>(header), copy.end(), '\0');
    }
    for (const FilePart& part : parts) {
      if (part.file != name) continue;
      for (uint64_t run = 0; run < part.runs.count; ++run) {
        const uint64_t at = part.runs.begin + run * part.runs.stride;
        copy.replace(at, part.runs.bytes, whole, at, part.runs.bytes);
      }
    }
    tests::write_file(to / name, copy);
  }
}

SyntheticOptions large(QuantMethod method) {
  SyntheticOptions options;
  options.method = method;
  options.hidden = 512;
  options.heads = 8;
  options.kv_heads = 4;
  options.head_dim = 64;
  options.intermediate = 1056;  // 33 groups of 32: uneven
  options.layers = 1;
  options.vocab = 83;
  return options;
}

std::vector<SyntheticOptions> kinds() {
  std::vector<SyntheticOptions> all = {
      large(QuantMethod::gptq), large(QuantMethod::awq),  large(QuantMethod::compressed_tensors),
      large(QuantMethod::gptq), large(QuantMethod::gptq), large(QuantMethod::none),
      large(QuantMethod::gptq)};
  all[1].symmetric = false;
  all[3].act_order = true;
  all[4].bits = 8;
  all[4].shards = 3;
  all[5].tied = true;
  all[6].architecture = Architecture::qwen;
  all[6].kv_heads = all[6].heads;
  all[6].dense = {"mlp.w1"};
  return all;
}

TEST(RankParts, AreAllThatLoadingDependsOnInEveryKindOfCheckpoint) {
  for (const SyntheticOptions& options : kinds()) {
    const SyntheticCheckpoint whole(options);
    const auto stored = Checkpoint::open(whole.dir());
    ASSERT_TRUE(stored) << stored.error().message;
    for (const int ranks : {2, 4}) {
      const ShardPlan plan = plan_of(whole.dir(), ranks);
      for (int rank = 0; rank < ranks; rank += 3) {
        const auto parts = parts_of_rank(*stored, plan, rank);
        const auto pieces = in_pieces(parts, 10'000);
        EXPECT_EQ(total_of(pieces), total_of(parts));
        const TempDir there;
        copy_parts(whole.dir(), there.path(), pieces);
        const auto wanted = load_rank_weights(whole.dir(), plan, rank),
                   got = load_rank_weights(there.path(), plan, rank);
        ASSERT_TRUE(wanted) << wanted.error().message;
        ASSERT_TRUE(got) << got.error().message;
        tests::expect_same(*got, *wanted);
        EXPECT_LE(total_of(parts), stored->tensor_bytes());
        if (ranks == 4) EXPECT_LT(total_of(parts), stored->tensor_bytes() / 2) << "only its part travels";
      }
    }
  }
}

TEST(RankParts, AreCutIntoPiecesOfWholeRuns) {
  const std::vector<FilePart> parts = {{"a", {100, 25, 0, 1}}, {"b", {7, 4, 10, 5}}, {"c", {0, 40, 90, 2}}};
  std::vector<ByteRuns> runs;
  for (const FilePart& piece : in_pieces(parts, 10)) runs.push_back(piece.runs);
  EXPECT_EQ(runs, (std::vector<ByteRuns>{{100, 10, 0, 1},
                                         {110, 10, 0, 1},
                                         {120, 5, 0, 1},
                                         {7, 4, 10, 2},
                                         {27, 4, 10, 2},
                                         {47, 4, 10, 1},
                                         {0, 40, 90, 1},
                                         {90, 40, 90, 1}}));
}

}  // namespace
}  // namespace lorikeet::model
