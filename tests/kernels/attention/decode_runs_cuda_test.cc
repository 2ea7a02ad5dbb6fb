// Rows of one sequence in one step: each must be what it would be alone, after those before it.
#include <tuple>

#include "kernels/attention/attention_decode_cuda.h"
#include "tests/kernels/attention/kv_memory.h"
#include "tests/kernels/base/cuda_test.h"

namespace lorikeet::kernels {
namespace {

struct Shape {
  int32_t heads, kv_heads, head_dim, block_size;
  bool norm;

  int32_t width() const { return (heads + 2 * kv_heads) * head_dim; }
};

// The last `run` positions of a sequence of `length` are rows of the step.
struct Tail {
  int32_t length, run;
};

// A row, the token of which lies where it does in the step of all rows.
struct Row {
  int32_t token, sequence, context, run;
};

class DecodeRunsCuda : public CudaTest, public ::testing::WithParamInterface<std::tuple<Dtype, KvDtype>> {
 protected:
  Dtype dtype() const { return std::get<0>(GetParam()); }
  KvDtype kv_dtype() const { return std::get<1>(GetParam()); }

  // What a step's kernels read, the same for every division of the rows into launches.
  struct Step {
    Shape shape;
    std::vector<Row> rows;
    PagedSequences sequences;
    DeviceBuffer qkv, bias, norm, cos_sin, positions, slots;
  };

  Step random_step(const Shape& shape, const std::vector<Tail>& runs) {
    Step step;
    step.shape = shape;
    std::vector<int32_t> lengths, positions, slots;
    for (const Tail& run : runs) lengths.push_back(run.length);
    step.sequences = random_sequences(lengths, kv_dtype(), shape.kv_heads, shape.block_size, shape.head_dim, random_);
    for (size_t i = 0; i < runs.size(); i++) {
      for (int32_t j = 0; j < runs[i].run; j++) {
        const int32_t position = runs[i].length - runs[i].run + j;
        step.rows.push_back({static_cast<int32_t>(step.rows.size()), static_cast<int32_t>(i), position + 1, j + 1});
        positions.push_back(position);
        const int32_t block = step.sequences.tables[i][static_cast<size_t>(position / shape.block_size)];
        slots.push_back(block * shape.block_size + position % shape.block_size);
      }
    }
    const size_t tokens = step.rows.size();
    const auto width = static_cast<size_t>(shape.width());
    step.qkv = to_device(random_halves(tokens * width, dtype(), random_).stored);
    step.bias = to_device(random_floats(width, random_));
    step.norm = to_device(random_floats(static_cast<size_t>(shape.head_dim), random_, 0.3F, 1));
    step.cos_sin = to_device(random_floats(tokens * static_cast<size_t>(shape.head_dim), random_));
    step.positions = to_device(positions);
    step.slots = to_device(slots);
    return step;
  }

  struct Memory {
    DeviceCache cache;
    DeviceBuffer out;
  };

  Memory memory_of(const Step& step) {
    Memory memory;
    memory.cache.keys = to_device(step.sequences.stored_keys.bytes);
    memory.cache.values = to_device(step.sequences.stored_values.bytes);
    if (kv_dtype() == KvDtype::f8_e4m3) {
      memory.cache.key_scales = to_device(step.sequences.stored_keys.scales);
      memory.cache.value_scales = to_device(step.sequences.stored_values.scales);
    }
    memory.out = poisoned(static_cast<uint64_t>(step.rows.size()) * step.shape.heads * step.shape.head_dim * 2);
    return memory;
  }

  // `parts` of every row, or as the kernel's own division has them.
  void launch(const Step& step, const std::vector<Row>& rows, const Memory& memory, int32_t parts = 0) {
    const Shape& shape = step.shape;
    const auto count = static_cast<int32_t>(rows.size());
    std::vector<int32_t> tokens, contexts, begins, tables, runs;
    for (const Row& row : rows) {
      const std::vector<int32_t>& table = step.sequences.tables[static_cast<size_t>(row.sequence)];
      tokens.push_back(row.token);
      contexts.push_back(row.context);
      begins.push_back(static_cast<int32_t>(tables.size()));
      tables.insert(tables.end(), table.begin(), table.end());
      runs.push_back(row.run);
    }
    const DecodeDivision division(shape.heads, shape.kv_heads, device_properties().multiprocessors);
    std::vector<int32_t> pieces(static_cast<size_t>(DecodeDivision::entries(count)));
    division.write(contexts, pieces.data(), count > 1);
    if (parts > 0) {
      pieces = {count * parts | kDecodeRuns};
      for (int32_t i = 0; i < count * parts; i++) pieces.push_back(DecodePiece{i / parts, i % parts, parts}.packed());
    }
    const DeviceBuffer device_tokens = to_device(tokens), device_contexts = to_device(contexts),
                       device_begins = to_device(begins), device_tables = to_device(tables),
                       device_runs = to_device(runs), device_pieces = to_device(pieces);
    const DeviceBuffer workspace =
        zeroed(decode_attention_workspace(count, shape.heads, shape.kv_heads, shape.head_dim));
    DecodeAttentionArgs args;
    args.q = step.qkv.data();
    args.q_stride = shape.width();
    args.out = memory.out.data();
    args.dtype = dtype();
    args.heads = shape.heads;
    args.cache = memory.cache.layer(kv_dtype(), shape.kv_heads, shape.block_size, shape.head_dim);
    args.scale = 1 / std::sqrt(static_cast<float>(shape.head_dim));
    args.query_tokens = device_tokens.as<int32_t>();
    args.contexts = device_contexts.as<int32_t>();
    args.table_begins = device_begins.as<int32_t>();
    args.block_tables = device_tables.as<int32_t>();
    args.pieces = device_pieces.as<int32_t>();
    args.rows = count;
    args.division = division;
    args.workspace = workspace.as<float>();
    args.rotate = true;
    args.rope.qkv = step.qkv.data();
    args.rope.dtype = dtype();
    args.rope.bias = step.bias.as<float>();
    if (shape.norm) args.rope.q_norm = args.rope.k_norm = step.norm.as<float>();
    args.rope.norm_epsilon = 1e-6F;
    args.rope.cos_sin = step.cos_sin.as<float>();
    args.rope.positions = step.positions.as<int32_t>();
    args.rope.log_n_length = 600;
    args.rope.kv_slots = step.slots.as<int32_t>();
    args.rope.tokens = static_cast<int32_t>(step.rows.size());
    args.rope.heads = shape.heads;
    args.rope.cache = args.cache;
    args.runs = device_runs.as<int32_t>();
    decode_attention_cuda(args, stream_);
    stream_.synchronize();
  }

  struct Result {
    std::vector<uint16_t> out;
    std::vector<uint8_t> keys, values;
    std::vector<uint32_t> scales;  // by their bits

    bool operator==(const Result&) const = default;
  };

  Result result(const Memory& memory) {
    Result result{
        to_host<uint16_t>(memory.out), to_host<uint8_t>(memory.cache.keys), to_host<uint8_t>(memory.cache.values), {}};
    if (kv_dtype() == KvDtype::f8_e4m3) {
      result.scales = to_host<uint32_t>(memory.cache.key_scales);
      const std::vector<uint32_t> of_values = to_host<uint32_t>(memory.cache.value_scales);
      result.scales.insert(result.scales.end(), of_values.begin(), of_values.end());
    }
    return result;
  }

  std::mt19937 random_{7};
};

TEST_P(DecodeRunsCuda, GiveEveryPositionTheBitsOfALoneRow) {
  // From the first position on; over the ends of tiles, blocks and segments; alone among them; long.
  const std::vector<Tail> runs =
      sizes<Tail>({{8, 8}, {20, 5}, {513, 8}, {777, 1}, {130, 2}, {1, 1}, {33, 3}}, {{3, 3}, {70, 4}, {20, 1}});
  for (const Shape& shape : sizes<Shape>({{40, 8, 128, 16, false}, {12, 1, 128, 32, true}, {14, 2, 64, 64, false}},
                                         {{12, 1, 128, 32, true}, {14, 2, 64, 64, false}})) {
    const Step step = random_step(shape, runs);
    const Memory alone = memory_of(step);
    for (Row row : step.rows) {
      row.run = 1;
      launch(step, {row}, alone);
    }
    const Result expected = result(alone);
    for (const int32_t parts : sizes({0, 1, 2, 4, 8}, {0, 2})) {
      const Memory together = memory_of(step);
      launch(step, step.rows, together, parts);
      EXPECT_TRUE(result(together) == expected)
          << shape.heads << " heads of " << shape.head_dim << ", " << parts << " parts";
    }
  }
}

TEST_P(DecodeRunsCuda, GiveOneSequenceAloneTheBitsOfLoneRows) {
  for (const Tail& run : sizes<Tail>({{40, 2}, {515, 4}, {20000, 8}}, {{40, 2}, {8200, 2}})) {
    const int32_t kv_heads = run.length < 1000 ? usual_or_few(8, 2) : 1;
    const Shape shape{5 * kv_heads, kv_heads, 128, 16, false};
    const Step step = random_step(shape, {run});
    const Memory alone = memory_of(step), together = memory_of(step);
    for (Row row : step.rows) {
      row.run = 1;
      launch(step, {row}, alone);
    }
    launch(step, step.rows, together);
    EXPECT_TRUE(result(together) == result(alone)) << run.run << " positions of " << run.length;
  }
}

INSTANTIATE_TEST_SUITE_P(, DecodeRunsCuda,
                         ::testing::Combine(::testing::Values(Dtype::f16, Dtype::bf16),
                                            ::testing::Values(KvDtype::f16, KvDtype::bf16, KvDtype::f8_e4m3)),
                         [](const auto& test) {
                           return dtype_name(std::get<0>(test.param)) + "With" + kv_name(std::get<1>(test.param));
                         });

}  // namespace
}  // namespace lorikeet::kernels
