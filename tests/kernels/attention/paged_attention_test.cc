#include "kernels/attention/paged_attention.h"

#include <gtest/gtest.h>

#include "kernels/attention/attention_simd.h"
#include "kernels/base/aligned_floats.h"
#include "tests/kernels/base/instruction_sets.h"
#include "tests/kernels/base/random_data.h"
#include "tests/tolerance.h"

namespace lorikeet::kernels {
namespace {

using tests::kFloat32Tolerance;
using tests::random_floats;
using tests::worst_difference;

struct Shape {
  int32_t heads, kv_heads, head_dim, block_size;
};

// A cache whose every position holds something, two sequences with shuffled blocks in it, and a batch of both: prompt
// chunks and decode rows.
struct Scene {
  Shape shape;
  std::vector<float> keys, values;
  std::vector<int32_t> table, other_table;
  std::vector<AttentionToken> tokens;
  std::vector<float> k, v, q;
  KvCacheCpu cache;

  Scene(const Shape& s, int32_t blocks, std::mt19937& random) : shape(s) {
    const auto floats = static_cast<size_t>(blocks * s.kv_heads * s.block_size * s.head_dim);
    keys = random_floats(floats + KvCacheCpu::kPadding, random);
    values = random_floats(floats, random);
    std::vector<int32_t> order(static_cast<size_t>(blocks));
    for (int32_t i = 0; i < blocks; ++i) order[static_cast<size_t>(i)] = i;
    std::shuffle(order.begin(), order.end(), random);
    table.assign(order.begin(), order.begin() + blocks / 2);
    other_table.assign(order.begin() + blocks / 2, order.end());
    const int32_t last = blocks / 2 * s.block_size - 1;
    for (const int32_t position : {0, 1, 2, 3, 4, 5, 6, 17, last / 2, last / 2 + 1, last})
      tokens.push_back({position, table.data()});
    for (const int32_t position : {last - 2, last - 1, last}) tokens.push_back({position, other_table.data()});
    k = random_floats(tokens.size() * static_cast<size_t>(s.kv_heads * s.head_dim), random);
    v = random_floats(k.size(), random);
    q = random_floats(tokens.size() * static_cast<size_t>(s.heads * s.head_dim), random);
    cache = {keys.data(), values.data(), s.kv_heads, s.block_size, s.head_dim};
    store_kv_cpu(cache, tokens.data(), count(), k.data(), v.data());
  }

  int32_t count() const { return static_cast<int32_t>(tokens.size()); }
  int64_t row() const { return static_cast<int64_t>(shape.heads) * shape.head_dim; }

  std::vector<double> reference() const {
    std::vector<double> want;
    for (int32_t t = 0; t < count(); ++t) {
      for (int32_t h = 0; h < shape.heads; ++h) one_head(t, h, want);
    }
    return want;
  }

 private:
  double key(const int32_t* blocks, int32_t kv, int32_t p, int32_t d) const {
    return keys[static_cast<size_t>(
        ((static_cast<int64_t>(blocks[p / shape.block_size]) * shape.kv_heads + kv) * shape.head_dim + d) *
            shape.block_size +
        p % shape.block_size)];
  }
  double value(const int32_t* blocks, int32_t kv, int32_t p, int32_t d) const {
    return values[static_cast<size_t>(
        ((static_cast<int64_t>(blocks[p / shape.block_size]) * shape.kv_heads + kv) * shape.block_size +
         p % shape.block_size) *
            shape.head_dim +
        d)];
  }

  void one_head(int32_t t, int32_t h, std::vector<double>& want) const {
    const int32_t kv = h / (shape.heads / shape.kv_heads);
    const AttentionToken& token = tokens[static_cast<size_t>(t)];
    std::vector<double> weights;
    double total = 0;
    for (int32_t p = 0; p <= token.position; ++p) {
      double dot = 0;
      for (int32_t d = 0; d < shape.head_dim; ++d) {
        dot += static_cast<double>(q[static_cast<size_t>(t * row() + h * shape.head_dim + d)]) *
               key(token.block_table, kv, p, d);
      }
      weights.push_back(std::exp(dot / std::sqrt(shape.head_dim)));
      total += weights.back();
    }
    for (int32_t d = 0; d < shape.head_dim; ++d) {
      double sum = 0;
      for (int32_t p = 0; p <= token.position; ++p)
        sum += weights[static_cast<size_t>(p)] * value(token.block_table, kv, p, d);
      want.push_back(sum / total);
    }
  }
};

const std::vector<Shape> kShapes = {{4, 2, 16, 4},    {6, 1, 20, 3},  {2, 2, 64, 16},
                                    {10, 2, 128, 16}, {3, 3, 33, 24}, {14, 2, 64, 32}};

TEST(PagedAttention, AgreesWithFloat64ForChunksAndDecodeRowsTogether) {
  std::mt19937 random(1);
  ThreadPool pool(2);
  for (const Shape& shape : kShapes) {
    const Scene scene(shape, 1400 / shape.block_size, random);  // several chunks of the running softmax
    const auto want = scene.reference();
    std::vector<float> out(want.size(), NAN), plain(want.size(), NAN);
    paged_attention_cpu(scene.cache, scene.tokens.data(), scene.count(), scene.q.data(), shape.heads, out.data(), pool);
    paged_attention_plain(scene.cache, scene.tokens.data(), scene.count(), scene.q.data(), shape.heads, plain.data());
    EXPECT_LT(worst_difference(out, want), kFloat32Tolerance) << shape.head_dim;
    EXPECT_LT(worst_difference(plain, want), kFloat32Tolerance) << shape.head_dim;
  }
}

TEST(PagedAttention, GivesATokenTheSameBitsInAnyBatch) {
  std::mt19937 random(2);
  ThreadPool one(1), three(3);
  for (const Shape& shape : kShapes) {
    const Scene scene(shape, 1400 / shape.block_size, random);
    std::vector<float> whole(scene.q.size()), part(scene.q.size());
    paged_attention_cpu(scene.cache, scene.tokens.data(), scene.count(), scene.q.data(), shape.heads, whole.data(),
                        one);
    for (const int32_t size : {1, 2, 5}) {
      for (int32_t t = 0; t < scene.count(); t += size) {
        paged_attention_cpu(scene.cache, &scene.tokens[static_cast<size_t>(t)], std::min(size, scene.count() - t),
                            scene.q.data() + t * scene.row(), shape.heads, part.data() + t * scene.row(), three);
      }
      EXPECT_EQ(part, whole) << shape.head_dim << ", " << size << " at a time";
    }
  }
}

TEST(PagedAttention, AgreesOnEveryInstructionSet) {
  std::mt19937 random(3);
  AlignedFloats scratch(static_cast<size_t>(kAttentionScratch));
  const Scene scene({1, 1, 40, 16}, 80, random);
  const auto want = scene.reference();
  for (const CpuIsa isa : tests::instruction_sets()) {
    AttendLoop* const attend = attend_loop(isa);
    ASSERT_NE(attend, nullptr) << name_of(isa);
    std::vector<float> out(want.size(), NAN);
    for (int32_t t = 0; t < scene.count(); ++t) {
      AttentionTile tile;
      tile.cache = &scene.cache;
      tile.block_table = scene.tokens[static_cast<size_t>(t)].block_table;
      tile.rows = 1;
      tile.q[0] = scene.q.data() + t * scene.row();
      tile.out[0] = out.data() + t * scene.row();
      tile.position[0] = scene.tokens[static_cast<size_t>(t)].position;
      attend(tile, scratch.data());
    }
    EXPECT_LT(worst_difference(out, want), kFloat32Tolerance) << name_of(isa);
  }
}

}  // namespace
}  // namespace lorikeet::kernels
