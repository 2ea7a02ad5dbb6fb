#include "kernels/attention/attention_decode_cuda.h"

#include <tuple>

#include "tests/kernels/attention/kv_memory.h"
#include "tests/kernels/base/cuda_test.h"

namespace lorikeet::kernels {
namespace {

class AttentionDecodeCuda : public CudaTest, public ::testing::WithParamInterface<std::tuple<Dtype, KvDtype>> {
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

  // Runs the kernel for one query per sequence, row r on token r * 2 (so that tokens and rows differ), `spare` empty
  // rows behind. `parts` of every row, or as the kernel's own division has them.
  std::vector<float> run(const PagedSequences& s, const std::vector<int32_t>& contexts, const std::vector<uint16_t>& q,
                         int32_t heads, int32_t spare = 0, int repeats = 1, int32_t parts = 0) {
    const auto rows = static_cast<int32_t>(contexts.size());
    const int32_t all_rows = rows + spare;
    const int64_t q_stride = (heads + 2 * s.kv_heads) * s.head_dim;
    std::vector<uint16_t> spread(static_cast<size_t>(2 * all_rows * q_stride), to_stored(NAN, dtype()));
    std::vector<int32_t> tokens, begins, tables, lengths;
    for (int32_t r = 0; r < all_rows; r++) {
      tokens.push_back(2 * r);
      begins.push_back(static_cast<int32_t>(tables.size()));
      lengths.push_back(r < rows ? contexts[static_cast<size_t>(r)] : 0);
      if (r >= rows) continue;
      tables.insert(tables.end(), s.tables[static_cast<size_t>(r)].begin(), s.tables[static_cast<size_t>(r)].end());
      std::copy_n(q.begin() + static_cast<int64_t>(r) * heads * s.head_dim, heads * s.head_dim,
                  spread.begin() + 2 * r * q_stride);
    }
    const DecodeDivision division(heads, s.kv_heads, device_properties().multiprocessors);
    std::vector<int32_t> pieces(static_cast<size_t>(DecodeDivision::entries(all_rows)));
    division.write(lengths, pieces.data());
    if (parts > 0) {
      pieces = {all_rows * parts};
      for (int32_t i = 0; i < pieces[0]; i++) pieces.push_back(DecodePiece{i / parts, i % parts, parts}.packed());
    }
    const DeviceBuffer device_q = to_device(spread);
    const DeviceCache cache = cache_of(s);
    const DeviceBuffer device_tokens = to_device(tokens);
    const DeviceBuffer device_lengths = to_device(lengths);
    const DeviceBuffer device_begins = to_device(begins);
    const DeviceBuffer device_tables = to_device(tables);
    const DeviceBuffer device_pieces = to_device(pieces);
    const DeviceBuffer workspace = zeroed(decode_attention_workspace(all_rows, heads, s.kv_heads, s.head_dim));
    const DeviceBuffer out = poisoned(static_cast<uint64_t>(2 * all_rows) * heads * s.head_dim * 2);
    DecodeAttentionArgs args;
    args.q = device_q.data();
    args.q_stride = q_stride;
    args.out = out.data();
    args.dtype = dtype();
    args.heads = heads;
    args.cache = cache.layer(kv_dtype(), s.kv_heads, s.block_size, s.head_dim);
    args.scale = 1 / std::sqrt(static_cast<float>(s.head_dim));
    args.query_tokens = device_tokens.as<int32_t>();
    args.contexts = device_lengths.as<int32_t>();
    args.table_begins = device_begins.as<int32_t>();
    args.block_tables = device_tables.as<int32_t>();
    args.pieces = device_pieces.as<int32_t>();
    args.rows = all_rows;
    args.division = division;
    args.workspace = workspace.as<float>();
    for (int i = 0; i < repeats; i++) decode_attention_cuda(args, stream_);
    const std::vector<float> all = to_values(to_host<uint16_t>(out), dtype());
    std::vector<float> used;
    for (int32_t r = 0; r < rows; r++) {
      const int64_t begin = static_cast<int64_t>(2 * r) * heads * s.head_dim;
      used.insert(used.end(), all.begin() + begin, all.begin() + begin + heads * s.head_dim);
    }
    return used;
  }

  std::mt19937 random_{5};
};

TEST_P(AttentionDecodeCuda, EqualsSoftmaxOverAllPositionsOfEachRow) {
  struct Shape {
    int32_t heads, kv_heads, head_dim, block_size;
  };
  const std::vector<Shape> shapes =
      sizes<Shape>({{40, 8, 128, 16}, {4, 2, 128, 16}, {12, 1, 128, 32}, {3, 3, 64, 8}, {14, 2, 64, 64}},
                   {{12, 1, 128, 32}, {3, 3, 64, 8}});
  const std::vector<int32_t> contexts =
      sizes({1, 15, 16, 17, 63, 64, 65, 128, 129, 512, 777, 1100}, {1, 16, 17, 65, 300});
  for (const Shape& shape : shapes) {
    const PagedSequences s =
        random_sequences(contexts, kv_dtype(), shape.kv_heads, shape.block_size, shape.head_dim, random_);
    const HalfTensor q =
        random_halves(contexts.size() * static_cast<size_t>(shape.heads * shape.head_dim), dtype(), random_);
    std::vector<double> expected;
    for (size_t r = 0; r < contexts.size(); r++) {
      for (int32_t h = 0; h < shape.heads; h++) {
        const std::vector<double> head =
            attention_of(s, r, contexts[r], &q.values[(r * shape.heads + h) * shape.head_dim],
                         h / (shape.heads / shape.kv_heads), 1 / std::sqrt(static_cast<double>(shape.head_dim)));
        expected.insert(expected.end(), head.begin(), head.end());
      }
    }
    EXPECT_TRUE(near_reference(run(s, contexts, q.stored, shape.heads), expected, tolerance_of(dtype())))
        << shape.heads << " heads, " << shape.kv_heads << " KV heads of " << shape.head_dim;
  }
}

TEST_P(AttentionDecodeCuda, GivesARowTheSameBitsAloneInABatchAndOnReplay) {
  const int32_t heads = 10;
  std::vector<int32_t> contexts;
  for (int32_t r = 0; r < usual_or_few(64, 4); r++) contexts.push_back(1 + (r * 397) % usual_or_few(1500, 310));
  const PagedSequences s = random_sequences(contexts, kv_dtype(), 2, 16, 128, random_);
  const HalfTensor q = random_halves(contexts.size() * heads * 128, dtype(), random_);
  const std::vector<float> together = run(s, contexts, q.stored, heads, 5);
  EXPECT_EQ(run(s, contexts, q.stored, heads, 0, usual_or_few(20, 2)), together) << "on replay, without spare rows";
  for (const int32_t parts : sizes({1, 2, 4, 8}, {1, 2, 8})) {
    EXPECT_EQ(run(s, contexts, q.stored, heads, 0, usual_or_few(3, 1), parts), together) << parts << " parts";
  }
  // As few rows as let 8, 4 and 2 blocks share a pair, if they can.
  for (const int32_t count : sizes({3, 9, 30}, {3})) {
    const std::vector<int32_t> some(contexts.begin(), contexts.begin() + count);
    const std::vector<float> expected(together.begin(), together.begin() + count * heads * 128);
    const std::vector<uint16_t> queries(q.stored.begin(), q.stored.begin() + count * heads * 128);
    EXPECT_EQ(run(s, some, queries, heads, 1, usual_or_few(3, 1)), expected) << count << " rows";
    for (const int32_t parts : sizes({1, 2, 4, 8}, {4})) {
      EXPECT_EQ(run(s, some, queries, heads, 1, 3, parts), expected) << count << " rows, " << parts << " parts";
    }
  }
  for (const size_t r : sizes<size_t>({0, 17, 63}, {0, 3})) {
    PagedSequences one = s;
    one.tables = {s.tables[r]};
    const auto begin = static_cast<int64_t>(r) * heads * 128;
    const std::vector<float> alone =
        run(one, {contexts[r]}, {q.stored.begin() + begin, q.stored.begin() + begin + heads * 128}, heads);
    EXPECT_EQ(alone, std::vector<float>(together.begin() + begin, together.begin() + begin + heads * 128))
        << "row " << r;
  }
}

TEST_P(AttentionDecodeCuda, GivesALongRowTheSameBitsHoweverManyBlocksShareIt) {
  const int32_t heads = 5;
  for (const int32_t context : sizes({16400, 20000}, {8200})) {
    std::vector<int32_t> contexts(21, 40);
    contexts[0] = context;
    const PagedSequences s = random_sequences(contexts, kv_dtype(), 1, 16, 128, random_);
    const HalfTensor q = random_halves(contexts.size() * heads * 128, dtype(), random_);
    const auto first_row = [&](const std::vector<float>& all) {
      return std::vector<float>(all.begin(), all.begin() + heads * 128);
    };
    const std::vector<float> among_many = first_row(run(s, contexts, q.stored, heads));
    for (const int32_t count : sizes({1, 3}, {1})) {
      const std::vector<int32_t> some(contexts.begin(), contexts.begin() + count);
      const std::vector<uint16_t> queries(q.stored.begin(), q.stored.begin() + count * heads * 128);
      EXPECT_EQ(first_row(run(s, some, queries, heads, 0, usual_or_few(2, 1))), among_many)
          << count << " rows of " << context;
    }
    const std::vector<uint16_t> query(q.stored.begin(), q.stored.begin() + heads * 128);
    const int32_t segments =
        DecodeDivision(heads, 1, device_properties().multiprocessors).segments(decode_tiles(context));
    for (int32_t parts = segments / (kDecodeWarps * kMostWarpSegments); parts <= segments / kDecodeWarps;
         parts *= usual_or_few(2, 8)) {
      EXPECT_EQ(run(s, {context}, query, heads, 0, usual_or_few(2, 1), parts), among_many)
          << parts << " parts of " << context;
    }
  }
}

// Each has a number of blocks of its own, and all their results lie in the same memory.
TEST_P(AttentionDecodeCuda, GivesLongRowsOfDifferentLengthsTheirOwnBits) {
  const std::vector<int32_t> contexts = sizes({17000, 4500, 8200}, {8200, 4500});
  const int32_t heads = 5;
  const int32_t width = heads * 128;
  const PagedSequences s = random_sequences(contexts, kv_dtype(), 1, 16, 128, random_);
  const HalfTensor q = random_halves(contexts.size() * width, dtype(), random_);
  PagedSequences one = s;
  for (const int32_t count : sizes({2, 3}, {2})) {
    const std::vector<int32_t> some(contexts.begin(), contexts.begin() + count);
    const std::vector<uint16_t> queries(q.stored.begin(), q.stored.begin() + count * width);
    const std::vector<float> together = run(s, some, queries, heads, 0, usual_or_few(2, 1));
    for (int32_t row = 0; row < count; row++) {
      one.tables = {s.tables[static_cast<size_t>(row)]};
      const std::vector<uint16_t> query(q.stored.begin() + row * width, q.stored.begin() + (row + 1) * width);
      EXPECT_EQ(run(one, {contexts[static_cast<size_t>(row)]}, query, heads, 0, usual_or_few(2, 1)),
                std::vector<float>(together.begin() + row * width, together.begin() + (row + 1) * width))
          << "row " << row << " of " << count;
    }
  }
}

TEST_P(AttentionDecodeCuda, HandlesALongContextWithLargeScores) {
  struct Shape {
    int32_t kv_heads, head_dim, context;
  };
  for (const Shape& shape : sizes<Shape>({{1, 128, 20000}, {2, 128, 33000}, {1, 64, 17000}}, {{1, 64, 8200}})) {
    const std::vector<int32_t> contexts = {shape.context};
    const int32_t heads = 5 * shape.kv_heads;
    const PagedSequences s = random_sequences(contexts, kv_dtype(), shape.kv_heads, 16, shape.head_dim, random_);
    const HalfTensor q = random_halves(static_cast<size_t>(heads * shape.head_dim), dtype(), random_, 8);
    std::vector<double> expected;
    for (int32_t h = 0; h < heads; h++) {
      const std::vector<double> head =
          attention_of(s, 0, shape.context, &q.values[static_cast<size_t>(h * shape.head_dim)], h / 5,
                       1 / std::sqrt(static_cast<double>(shape.head_dim)));
      expected.insert(expected.end(), head.begin(), head.end());
    }
    EXPECT_TRUE(near_reference(run(s, contexts, q.stored, heads), expected, tolerance_of(dtype())))
        << shape.context << " positions, " << shape.kv_heads << " KV heads of " << shape.head_dim;
  }
}

TEST_P(AttentionDecodeCuda, RotatesAndStoresAsTheRopeKernelBeforeItWould) {
  struct Shape {
    int32_t heads, kv_heads, head_dim, block_size;
    bool norm;
  };
  const std::vector<int32_t> contexts = sizes({1, 16, 17, 64, 65, 512, 777, 1100}, {1, 17, 65, 300});
  const auto rows = static_cast<int32_t>(contexts.size());
  for (const Shape& shape : sizes<Shape>({{40, 8, 128, 16, false}, {12, 1, 128, 32, true}, {14, 2, 64, 64, false}},
                                         {{10, 2, 128, 16, false}, {12, 1, 128, 32, true}, {14, 2, 64, 64, false}})) {
    const PagedSequences s =
        random_sequences(contexts, kv_dtype(), shape.kv_heads, shape.block_size, shape.head_dim, random_);
    const int32_t row_heads = shape.heads + 2 * shape.kv_heads;
    const size_t width = static_cast<size_t>(row_heads) * shape.head_dim;
    const HalfTensor qkv = random_halves(static_cast<size_t>(rows) * width, dtype(), random_);
    const DecodeDivision division(shape.heads, shape.kv_heads, device_properties().multiprocessors);
    std::vector<int32_t> tokens, positions, slots, begins, tables;
    std::vector<int32_t> pieces(static_cast<size_t>(DecodeDivision::entries(rows)));
    division.write(contexts, pieces.data());
    for (int32_t r = 0; r < rows; r++) {
      const std::vector<int32_t>& table = s.tables[static_cast<size_t>(r)];
      tokens.push_back(rows - 1 - r);
      begins.push_back(static_cast<int32_t>(tables.size()));
      tables.insert(tables.end(), table.begin(), table.end());
    }
    for (int32_t token = 0; token < rows; token++) {
      const auto r = static_cast<size_t>(rows - 1 - token);
      const int32_t last = contexts[r] - 1;
      positions.push_back(last);
      slots.push_back(s.tables[r][static_cast<size_t>(last / shape.block_size)] * shape.block_size +
                      last % shape.block_size);
    }
    const DeviceBuffer bias = to_device(random_floats(width, random_));
    const DeviceBuffer norm = to_device(random_floats(static_cast<size_t>(shape.head_dim), random_, 0.3F, 1));
    const DeviceBuffer cos_sin = to_device(random_floats(static_cast<size_t>(rows * shape.head_dim), random_));
    const DeviceBuffer device_tokens = to_device(tokens), device_positions = to_device(positions),
                       device_slots = to_device(slots), device_begins = to_device(begins),
                       device_tables = to_device(tables), device_pieces = to_device(pieces),
                       device_contexts = to_device(contexts);
    const DeviceBuffer workspace =
        zeroed(decode_attention_workspace(rows, shape.heads, shape.kv_heads, shape.head_dim));
    struct Result {
      std::vector<uint16_t> out;
      std::vector<uint8_t> keys, values;
      std::vector<float> scales;
    };
    const auto result = [&](bool rotate) {
      const DeviceBuffer device_qkv = to_device(qkv.stored);
      const DeviceCache cache = cache_of(s);
      const DeviceBuffer out = poisoned(static_cast<uint64_t>(rows) * shape.heads * shape.head_dim * 2);
      DecodeAttentionArgs args;
      args.q = device_qkv.data();
      args.q_stride = static_cast<int64_t>(width);
      args.out = out.data();
      args.dtype = dtype();
      args.heads = shape.heads;
      args.cache = cache.layer(kv_dtype(), shape.kv_heads, shape.block_size, shape.head_dim);
      args.scale = 1 / std::sqrt(static_cast<float>(shape.head_dim));
      args.query_tokens = device_tokens.as<int32_t>();
      args.contexts = device_contexts.as<int32_t>();
      args.table_begins = device_begins.as<int32_t>();
      args.block_tables = device_tables.as<int32_t>();
      args.pieces = device_pieces.as<int32_t>();
      args.rows = rows;
      args.division = division;
      args.workspace = workspace.as<float>();
      args.rope.qkv = device_qkv.data();
      args.rope.dtype = dtype();
      args.rope.bias = bias.as<float>();
      if (shape.norm) args.rope.q_norm = args.rope.k_norm = norm.as<float>();
      args.rope.norm_epsilon = 1e-6F;
      args.rope.cos_sin = cos_sin.as<float>();
      args.rope.positions = device_positions.as<int32_t>();
      args.rope.log_n_length = 600;
      args.rope.kv_slots = device_slots.as<int32_t>();
      args.rope.tokens = rows;
      args.rope.heads = shape.heads;
      args.rope.cache = args.cache;
      args.rotate = rotate;
      const DeviceBuffer done = zeroed(sizeof(uint32_t));
      args.done = done.as<uint32_t>();
      if (!rotate) rope_and_store_kv_cuda(args.rope, stream_);
      const int32_t blocks = decode_attention_cuda(args, stream_);
      EXPECT_EQ(to_host<uint32_t>(done), std::vector<uint32_t>{static_cast<uint32_t>(blocks)});
      Result made{to_host<uint16_t>(out), to_host<uint8_t>(cache.keys), to_host<uint8_t>(cache.values), {}};
      if (kv_dtype() == KvDtype::f8_e4m3) {
        for (const DeviceBuffer* scales : {&cache.key_scales, &cache.value_scales}) {
          for (const float scale : to_host<float>(*scales)) made.scales.push_back(std::isnan(scale) ? -1 : scale);
        }
      }
      return made;
    };
    const Result expected = result(false);
    const Result fused = result(true);
    EXPECT_NE(expected.keys, s.stored_keys.bytes);
    EXPECT_EQ(fused.scales, expected.scales);
    EXPECT_EQ(fused.keys, expected.keys);
    EXPECT_EQ(fused.values, expected.values);
    EXPECT_EQ(fused.out, expected.out) << shape.heads << " heads of " << shape.head_dim;
  }
}

INSTANTIATE_TEST_SUITE_P(, AttentionDecodeCuda,
                         ::testing::Combine(::testing::Values(Dtype::f16, Dtype::bf16),
                                            ::testing::Values(KvDtype::f16, KvDtype::bf16, KvDtype::f8_e4m3)),
                         [](const auto& test) {
                           return dtype_name(std::get<0>(test.param)) + "With" + kv_name(std::get<1>(test.param));
                         });

TEST(DecodeDivision, SpreadsALongRowThatIsNearlyAloneOverTheWholeDevice) {
  const auto parts_of_first = [](int32_t kv_heads, const std::vector<int32_t>& contexts) {
    std::vector<int32_t> pieces(static_cast<size_t>(DecodeDivision::entries(static_cast<int32_t>(contexts.size()))));
    DecodeDivision(40, kv_heads, 132).write(contexts, pieces.data());
    return DecodePiece::of(pieces[1]).parts;
  };
  EXPECT_EQ(parts_of_first(8, {16000}), 8);
  EXPECT_EQ(parts_of_first(8, {16400}), 16);
  EXPECT_EQ(parts_of_first(8, {32000}), 16) << "8 KV heads, 132 multiprocessors";
  EXPECT_EQ(parts_of_first(4, {32000}), 16) << "of heads in groups of 10 there are two tiles";
  EXPECT_EQ(parts_of_first(1, {32000, 5}), 8) << "40 heads that share keys are five tiles, of two rows";
  EXPECT_EQ(DecodeDivision(5, 1, 132).most_parts(8), 16);
  EXPECT_EQ(DecodeDivision(5, 1, 132).most_parts(9), 8);
  EXPECT_EQ(DecodeDivision(40, 8, 132).most_parts(2), 8);
}

TEST(DecodeDivision, CutsLongRowsInTwoAtLeast) {
  const std::vector<int32_t> contexts(100, 20000);
  std::vector<int32_t> pieces(static_cast<size_t>(DecodeDivision::entries(100)));
  DecodeDivision(40, 8, 132).write(contexts, pieces.data());
  for (int32_t i = 1; i <= pieces[0]; i++) EXPECT_GE(DecodePiece::of(pieces[static_cast<size_t>(i)]).parts, 2);
}

TEST(DecodeDivision, CoversEveryRowWithItsParts) {
  std::mt19937 random(3);
  for (const int32_t kv_heads : {1, 2, 8, 40}) {
    const DecodeDivision division(40, kv_heads, 132);
    for (const int32_t rows : {1, 3, 5, 8, 16, 17, 33, 64, 200}) {
      std::vector<int32_t> contexts;
      for (int32_t r = 0; r < rows; r++) contexts.push_back(r == 2 ? 30000 : static_cast<int32_t>(random() % 900));
      std::vector<int32_t> pieces(static_cast<size_t>(DecodeDivision::entries(rows)), -1);
      division.write(contexts, pieces.data());
      int32_t next = 1;
      for (int32_t r = 0; r < rows; r++) {
        const int32_t parts = DecodePiece::of(pieces[static_cast<size_t>(next)]).parts;
        EXPECT_TRUE(parts == 1 || parts == 2 || parts == 4 || parts == kMostDecodeParts ||
                    (r == 2 && parts <= division.most_parts(rows)))
            << parts;
        if (r == 2) {
          EXPECT_GE(parts, 2) << "a long row among short ones";
        }
        for (int32_t part = 0; part < parts; part++, next++) {
          const DecodePiece piece = DecodePiece::of(pieces[static_cast<size_t>(next)]);
          EXPECT_EQ(piece.row, r);
          EXPECT_EQ(piece.part, part);
          EXPECT_EQ(piece.parts, parts);
        }
      }
      EXPECT_EQ(pieces[0], next - 1);
    }
  }
}

TEST(DecodeDivision, FillsTheDeviceWithALongRowWhateverItsHeads) {
  for (const int32_t kv_heads : {1, 2, 4, 8}) {
    const DecodeDivision division(5 * kv_heads, kv_heads, 132);
    std::vector<int32_t> pieces(static_cast<size_t>(DecodeDivision::entries(1)));
    division.write(std::vector<int32_t>{131072}, pieces.data());
    EXPECT_EQ(pieces[0] * kv_heads, 128) << kv_heads << " KV heads";
  }
  // A warp has eight tiles at least, so a shorter row takes fewer blocks.
  EXPECT_EQ(DecodeDivision(5, 1, 132).segments(decode_tiles(8192)), 64);
  EXPECT_EQ(DecodeDivision(5, 1, 132).segments(decode_tiles(8176)), 32);
  EXPECT_EQ(DecodeDivision(40, 8, 132).segments(decode_tiles(131072)), 64) << "more would not find a block";
  EXPECT_EQ(DecodeDivision(40, 8, 132).segments(decode_tiles(1009)), 32);
  EXPECT_EQ(DecodeDivision(40, 8, 132).segments(decode_tiles(1008)), 16) << "two tiles of fp8 are read at a time";
}

TEST(DecodeDivision, GivesAWarpNoMoreSegmentsThanItHasRoomFor) {
  std::mt19937 random(3);
  for (const int32_t kv_heads : {1, 2, 3, 8}) {
    for (const int32_t multiprocessors : {16, 46, 132, 148}) {
      const DecodeDivision division(40, kv_heads, multiprocessors);
      for (const int32_t rows : {1, 2, 9, 16, 30, 64, 300}) {
        std::vector<int32_t> contexts;
        for (int32_t r = 0; r < rows; r++)
          contexts.push_back(r % 3 == 0 ? 131072 : static_cast<int32_t>(random() % 70000));
        std::vector<int32_t> pieces(static_cast<size_t>(DecodeDivision::entries(rows)));
        division.write(contexts, pieces.data());
        ASSERT_LE(pieces[0], DecodeDivision::most_pieces(rows));
        for (int32_t i = 1; i <= pieces[0]; i++) {
          const DecodePiece piece = DecodePiece::of(pieces[static_cast<size_t>(i)]);
          const int32_t tiles = decode_tiles(contexts[static_cast<size_t>(piece.row)]);
          const int32_t segments = division.segments(tiles);
          EXPECT_GE(segments, (tiles < kShortDecodeTiles ? 1 : kDecodeWarps) * piece.parts);
          EXPECT_LE(segments, kDecodeWarps * piece.parts * kMostWarpSegments);
          // A cluster of the largest size works on one row.
          if (division.cluster(rows) == kMostDecodeParts) {
            EXPECT_EQ(piece.parts % kMostDecodeParts, 0);
          }
        }
      }
    }
  }
}

// Where the pieces of a batch are as many as if every row had a small cluster, the kernel takes them for that.
TEST(DecodeDivision, TakesNoRowForASmallClustersThatIsTooLongForOne) {
  std::mt19937 random(5);
  int taken = 0;
  for (int batch = 0; batch < 20000; batch++) {
    const int32_t kv_heads = 1 << random() % 4;
    const DecodeDivision division(5 * kv_heads, kv_heads, 16 + static_cast<int32_t>(random() % 200));
    std::vector<int32_t> contexts(1 + random() % 80);
    for (int32_t& context : contexts) {
      context = 1 + static_cast<int32_t>(random() % (random() % 8 == 0 ? 131072 : 1 + random() % 9000));
    }
    const auto rows = static_cast<int32_t>(contexts.size());
    const int32_t cluster = division.cluster(rows);
    std::vector<int32_t> pieces(static_cast<size_t>(DecodeDivision::entries(rows)));
    division.write(contexts, pieces.data());
    if (cluster == 1 || cluster == kMostDecodeParts || pieces[0] != rows * cluster) continue;
    taken++;
    for (const int32_t context : contexts) {
      ASSERT_LE(division.segments(decode_tiles(context)), kDecodeWarps * cluster * kMostWarpSegments)
          << context << " in a batch of " << rows << ", " << kv_heads << " KV heads";
    }
  }
  EXPECT_GT(taken, 100);
}

TEST(DecodeDivision, SplitsANumberOfPairsIntoRowsByAProduct) {
  for (const int32_t kv_heads : {2, 3, 5, 8, 40}) {
    const DecodeDivision division(kv_heads * 20, kv_heads, 132);  // three pairs of a KV head
    const auto pairs = static_cast<uint32_t>(division.pairs_of_row());
    EXPECT_EQ(pairs, 3U * static_cast<uint32_t>(kv_heads));
    for (uint32_t row = 0; row < uint32_t{kMaxDecodeRows} * kMostDecodeParts; row++) {
      for (const uint32_t pair : {0U, 1U, pairs - 1}) {
        ASSERT_EQ(uint64_t{row * pairs + pair} * division.pairs_inverse() >> 32, row) << pairs << " pairs";
      }
    }
  }
}

TEST(DecodeDivision, GivesEveryTileToOneSegment) {
  for (int32_t context = 1; context < 40000; context += 37) {
    const int32_t tiles = decode_tiles(context);
    const int32_t segments = DecodeDivision(5, 1, 132).segments(tiles);
    EXPECT_EQ(decode_segment_begin(tiles, segments, 0), 0);
    EXPECT_EQ(decode_segment_begin(tiles, segments, segments), tiles);
    for (int32_t i = 0; i < segments; i++) {
      const int32_t length = decode_segment_begin(tiles, segments, i + 1) - decode_segment_begin(tiles, segments, i);
      EXPECT_GE(length, tiles / segments);
      EXPECT_LE(length, (tiles + segments - 1) / segments);
    }
  }
}

}  // namespace
}  // namespace lorikeet::kernels
