#include "kernels/attention/attention_prefill_cuda.h"

#include <tuple>

#include "tests/kernels/attention/kv_memory.h"
#include "tests/kernels/base/cuda_test.h"

namespace lorikeet::kernels {
namespace {

// Queries at positions [start, start + count) of a sequence.
struct Chunk {
  int32_t start;
  int32_t count;
};

class AttentionPrefillCuda : public CudaTest, public ::testing::WithParamInterface<std::tuple<Dtype, KvDtype>> {
 protected:
  Dtype dtype() const { return std::get<0>(GetParam()); }
  KvDtype kv_dtype() const { return std::get<1>(GetParam()); }
  DeviceCache cache_of(const PagedSequences& s) {
    DeviceCache cache;
    cache.keys = to_device(s.stored_keys.bytes);
    cache.values = to_device(s.stored_values.bytes);
    if (kv_dtype() == KvDtype::f8_e4m3) {
      cache.key_scales = to_device(s.stored_keys.scales);
      cache.value_scales = to_device(s.stored_values.scales);
    }
    return cache;
  }

  // q [all queries, heads, head_dim]; chunk i is of sequence sequences[i].
  std::vector<float> run(const PagedSequences& s, const std::vector<size_t>& sequences,
                         const std::vector<Chunk>& chunks, const std::vector<uint16_t>& q, int32_t heads) {
    std::vector<int32_t> first_tokens, counts, starts, begins, tables, tile_rows, tile_firsts;
    int32_t tokens = 0;
    for (size_t r = 0; r < chunks.size(); r++) {
      first_tokens.push_back(tokens);
      counts.push_back(chunks[r].count);
      starts.push_back(chunks[r].start);
      begins.push_back(static_cast<int32_t>(tables.size()));
      const std::vector<int32_t>& table = s.tables[sequences[r]];
      tables.insert(tables.end(), table.begin(), table.end());
      for (int32_t first = 0; first < chunks[r].count; first += kPrefillQueryTile) {
        tile_rows.push_back(static_cast<int32_t>(r));
        tile_firsts.push_back(first);
      }
      tokens += chunks[r].count;
    }
    const DeviceBuffer device_q = to_device(q);
    const DeviceCache cache = cache_of(s);
    const DeviceBuffer device_first_tokens = to_device(first_tokens);
    const DeviceBuffer device_counts = to_device(counts);
    const DeviceBuffer device_starts = to_device(starts);
    const DeviceBuffer device_begins = to_device(begins);
    const DeviceBuffer device_tables = to_device(tables);
    const DeviceBuffer device_tile_rows = to_device(tile_rows);
    const DeviceBuffer device_tile_firsts = to_device(tile_firsts);
    const DeviceBuffer out = poisoned(static_cast<uint64_t>(tokens) * heads * s.head_dim * 2);
    PrefillAttentionArgs args;
    args.q = device_q.data();
    args.q_stride = heads * s.head_dim;
    args.out = out.data();
    args.dtype = dtype();
    args.heads = heads;
    args.cache = cache.layer(kv_dtype(), s.kv_heads, s.block_size, s.head_dim);
    args.scale = 1 / std::sqrt(static_cast<float>(s.head_dim));
    args.first_tokens = device_first_tokens.as<int32_t>();
    args.counts = device_counts.as<int32_t>();
    args.starts = device_starts.as<int32_t>();
    args.table_begins = device_begins.as<int32_t>();
    args.block_tables = device_tables.as<int32_t>();
    args.tile_rows = device_tile_rows.as<int32_t>();
    args.tile_firsts = device_tile_firsts.as<int32_t>();
    args.tiles = static_cast<int32_t>(tile_rows.size());
    prefill_attention_cuda(args, stream_);
    return to_values(to_host<uint16_t>(out), dtype());
  }

  std::mt19937 random_{6};
};

TEST_P(AttentionPrefillCuda, EqualsCausalSoftmaxForWholePromptsAndChunks) {
  struct Shape {
    int32_t heads, kv_heads, head_dim, block_size;
  };
  const std::vector<Shape> shapes =
      sizes<Shape>({{10, 2, 128, 16}, {2, 2, 128, 32}, {3, 1, 64, 8}}, {{2, 1, 128, 16}, {2, 1, 64, 8}});
  const std::vector<Chunk> chunks =
      sizes<Chunk>({{0, 2}, {0, 64}, {0, 65}, {0, 200}, {63, 2}, {64, 64}, {130, 77}, {500, 3}},
                   {{0, 2}, {0, 65}, {63, 2}, {64, 64}, {130, 77}});
  for (const Shape& shape : shapes) {
    std::vector<int32_t> lengths;
    std::vector<size_t> sequences;
    size_t tokens = 0;
    for (const Chunk& chunk : chunks) {
      sequences.push_back(lengths.size());
      lengths.push_back(chunk.start + chunk.count);
      tokens += static_cast<size_t>(chunk.count);
    }
    const PagedSequences s =
        random_sequences(lengths, kv_dtype(), shape.kv_heads, shape.block_size, shape.head_dim, random_);
    const HalfTensor q = random_halves(tokens * static_cast<size_t>(shape.heads * shape.head_dim), dtype(), random_);
    std::vector<double> expected;
    size_t token = 0;
    for (size_t r = 0; r < chunks.size(); r++) {
      for (int32_t i = 0; i < chunks[r].count; i++, token++) {
        for (int32_t h = 0; h < shape.heads; h++) {
          const std::vector<double> head = attention_of(
              s, r, chunks[r].start + i + 1, &q.values[(token * static_cast<size_t>(shape.heads) + h) * shape.head_dim],
              h / (shape.heads / shape.kv_heads), 1 / std::sqrt(static_cast<double>(shape.head_dim)));
          expected.insert(expected.end(), head.begin(), head.end());
        }
      }
    }
    EXPECT_TRUE(near_reference(run(s, sequences, chunks, q.stored, shape.heads), expected, tolerance_of(dtype())))
        << shape.heads << " heads, " << shape.kv_heads << " KV heads of " << shape.head_dim;
  }
}

TEST_P(AttentionPrefillCuda, GivesTheSameBitsHoweverThePromptIsCut) {
  const int32_t heads = usual_or_few(4, 2);
  const PagedSequences s = random_sequences({333}, kv_dtype(), 2, 16, 128, random_);
  const HalfTensor q = random_halves(size_t{333} * heads * 128, dtype(), random_);
  const std::vector<float> whole = run(s, {0}, {{0, 333}}, q.stored, heads);
  EXPECT_EQ(run(s, {0, 0, 0, 0}, {{0, 100}, {100, 3}, {103, 64}, {167, 166}}, q.stored, heads), whole);
}

INSTANTIATE_TEST_SUITE_P(, AttentionPrefillCuda,
                         ::testing::Combine(::testing::Values(Dtype::f16, Dtype::bf16),
                                            ::testing::Values(KvDtype::f16, KvDtype::bf16, KvDtype::f8_e4m3)),
                         [](const auto& test) {
                           return dtype_name(std::get<0>(test.param)) + "With" + kv_name(std::get<1>(test.param));
                         });

}  // namespace
}  // namespace lorikeet::kernels
