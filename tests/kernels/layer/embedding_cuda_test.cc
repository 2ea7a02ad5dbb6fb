#include "kernels/layer/embedding_cuda.h"

#include "tests/kernels/base/cuda_test.h"

namespace lorikeet::kernels {
namespace {

class EmbeddingCuda : public CudaTest, public ::testing::WithParamInterface<Dtype> {
 protected:
  EmbeddingArgs args_of(const DeviceBuffer& ids, const DeviceBuffer& table, int32_t vocab, int32_t hidden,
                        int32_t tokens, const DeviceBuffer& resolved, const DeviceBuffer& residual) {
    EmbeddingArgs args;
    args.token_ids = ids.as<int32_t>();
    args.weight = table.data();
    args.dtype = GetParam();
    args.vocab = vocab;
    args.hidden = hidden;
    args.tokens = tokens;
    args.resolved = resolved.as<int32_t>();
    args.residual = residual.as<float>();
    return args;
  }

  std::mt19937 random_{1};
};

TEST_P(EmbeddingCuda, ReadsTheRowsOfIdsAndOfTokensDrawnBefore) {
  for (const int32_t hidden : {8, 512, 5120, 2056}) {
    const int32_t vocab = 97;
    const HalfTensor table = random_halves(static_cast<size_t>(vocab) * hidden, GetParam(), random_);
    const std::vector<int32_t> ids = {0, 96, 5, ~1, ~0, 5};
    const std::vector<int32_t> drawn = {11, 42};
    const std::vector<int32_t> expected_ids = {0, 96, 5, 42, 11, 5};
    const DeviceBuffer device_ids = to_device(ids);
    const DeviceBuffer device_drawn = to_device(drawn);
    const DeviceBuffer device_table = to_device(table.stored);
    const DeviceBuffer resolved = poisoned(ids.size() * 4);
    const DeviceBuffer residual = poisoned(ids.size() * hidden * 4);
    EmbeddingArgs args = args_of(device_ids, device_table, vocab, hidden, 6, resolved, residual);
    args.drawn = device_drawn.as<int32_t>();
    const DeviceBuffer counters = poisoned(400 * sizeof(uint32_t));
    args.done_counters = counters.as<uint32_t>();
    args.num_done_counters = 399;
    embedding_cuda(args, stream_);
    std::vector<uint32_t> begun(399);
    begun.push_back(0xffffffffU);
    EXPECT_EQ(to_host<uint32_t>(counters), begun);
    EXPECT_EQ(to_host<int32_t>(resolved), expected_ids);
    std::vector<float> expected;
    for (const int32_t id : expected_ids) {
      expected.insert(expected.end(), table.values.begin() + static_cast<int64_t>(id) * hidden,
                      table.values.begin() + static_cast<int64_t>(id + 1) * hidden);
    }
    EXPECT_EQ(to_host<float>(residual), expected) << "hidden " << hidden;
  }
}

TEST_P(EmbeddingCuda, AddsTheDeltaOfEachTokensAdapter) {
  const int32_t vocab = 31;
  const int32_t hidden = 264;
  const HalfTensor table = random_halves(static_cast<size_t>(vocab) * hidden, GetParam(), random_);
  const std::vector<int32_t> ids = {3, 3, 3, 30};
  const std::vector<int32_t> slots = {-1, 0, 2, 2};
  const std::vector<int32_t> ranks = {5, 0, 64};
  const std::vector<float> scales = {2, 0, 0.5F};
  std::vector<HalfTensor> a;
  std::vector<HalfTensor> b;
  std::vector<DeviceBuffer> memory;
  std::vector<DeviceEmbeddingLora> lora(3);
  for (size_t s = 0; s < 3; s++) {
    a.push_back(random_halves(static_cast<size_t>(vocab) * ranks[s], GetParam(), random_));
    b.push_back(random_halves(static_cast<size_t>(hidden) * ranks[s], GetParam(), random_, 0.1F));
    memory.push_back(to_device(a[s].stored));
    lora[s].a = memory.back().data();
    memory.push_back(to_device(b[s].stored));
    lora[s].b = memory.back().data();
    lora[s].rank = ranks[s];
    lora[s].scale = scales[s];
  }
  const DeviceBuffer device_ids = to_device(ids);
  const DeviceBuffer device_slots = to_device(slots);
  const DeviceBuffer device_lora = to_device(lora);
  const DeviceBuffer device_table = to_device(table.stored);
  const DeviceBuffer resolved = poisoned(ids.size() * 4);
  const DeviceBuffer residual = poisoned(ids.size() * hidden * 4);
  EmbeddingArgs args = args_of(device_ids, device_table, vocab, hidden, 4, resolved, residual);
  args.slots = device_slots.as<int32_t>();
  args.lora = device_lora.as<DeviceEmbeddingLora>();
  embedding_cuda(args, stream_);

  std::vector<double> expected;
  for (size_t t = 0; t < ids.size(); t++) {
    for (int32_t h = 0; h < hidden; h++) {
      double x = table.values[static_cast<size_t>(ids[t]) * hidden + h];
      if (slots[t] >= 0) {
        const auto s = static_cast<size_t>(slots[t]);
        double delta = 0;
        for (int32_t r = 0; r < ranks[s]; r++) {
          delta += static_cast<double>(b[s].values[static_cast<size_t>(h) * ranks[s] + r]) *
                   a[s].values[static_cast<size_t>(ids[t]) * ranks[s] + r];
        }
        x += scales[s] * delta;
      }
      expected.push_back(x);
    }
  }
  EXPECT_TRUE(near_reference(to_host<float>(residual), expected, tests::kFloat32Tolerance));
}

INSTANTIATE_TEST_SUITE_P(, EmbeddingCuda, ::testing::Values(Dtype::f16, Dtype::bf16),
                         [](const auto& test) { return dtype_name(test.param); });

}  // namespace
}  // namespace lorikeet::kernels
