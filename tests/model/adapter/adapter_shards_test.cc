// Adapters for checkpoints that were padded, and cut over ranks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tests/model/adapter/adapter_base.h"
#include "tests/model/checkpoint/synthetic_checkpoint.h"

namespace lorikeet::model {
namespace {

using testing::HasSubstr;
using tests::SyntheticAdapter;
using tests::SyntheticCheckpoint;
using tests::SyntheticOptions;

// A checkpoint whose MLP was padded from 80 to 96 neurons with zeros between the real ones.
TEST(Adapter, IsSpreadOverAPaddedCheckpoint) {
  SyntheticOptions options;
  options.layers = 2;
  SyntheticCheckpoint base(options);
  std::vector<int32_t> real;
  for (int32_t i = 0; i < 96; ++i) {
    if (i >= 32 || i % 2 == 1) real.push_back(i);
  }
  const auto zero_lines = [&](const std::string& name, int32_t inputs, int32_t outputs, bool rows) {
    std::vector<uint32_t> words(static_cast<size_t>(inputs / 8 * outputs), 0x9a9a9a9a);
    for (int32_t k = 0; k < inputs; ++k) {
      for (int32_t n = 0; n < outputs; ++n) {
        const int32_t neuron = rows ? k : n;
        if (neuron < 32 && neuron % 2 == 0) {
          uint32_t& word = words[static_cast<size_t>(k / 8 * outputs + n)];
          word = (word & ~(15u << (k % 8 * 4))) | 8u << (k % 8 * 4);
        }
      }
    }
    base.tensors().remove(name);
    base.tensors().add(name, "I32", {inputs / 8, outputs}, words);
  };
  for (int layer = 0; layer < 2; ++layer) {
    const std::string mlp = "model.layers." + std::to_string(layer) + ".mlp.";
    zero_lines(mlp + "gate_proj.qweight", 64, 96, false);
    zero_lines(mlp + "up_proj.qweight", 64, 96, false);
    zero_lines(mlp + "down_proj.qweight", 96, 64, true);
  }
  base.write();
  const auto config = read_model_config(base.dir());
  ASSERT_TRUE(config) << config.error().message;

  SyntheticAdapter files;
  files.config = tests::plain_adapter_config(2, 8, {"up_proj", "down_proj"});
  const auto up = files.add_pair(module_of(1, Projection::up), 2, 64, 80);
  const auto down = files.add_pair(module_of(1, Projection::down), 2, 80, 64);
  files.write();
  const Adapter adapter = read(files, *config);
  const LoraPair& own_up = pair_of(adapter, 1, Projection::up);
  const LoraPair& own_down = pair_of(adapter, 1, Projection::down);
  ASSERT_EQ(own_up.b.size(), 96u * 2);
  ASSERT_EQ(own_down.a.size(), 2u * 96);
  EXPECT_EQ(own_up.outputs, 96);
  EXPECT_EQ(own_down.inputs, 96);
  double kept = 0, all = 0;
  for (size_t i = 0; i < real.size(); ++i) {
    for (size_t r = 0; r < 2; ++r) {
      const auto to = static_cast<size_t>(real[i]);
      EXPECT_EQ(own_up.b[to * 2 + r], up.b[i * 2 + r]);
      EXPECT_EQ(own_down.a[r * 96 + to], down.a[r * 80 + i]);
      kept += std::abs(own_up.b[to * 2 + r]) + std::abs(own_down.a[r * 96 + to]);
    }
  }
  for (const float value : own_up.b.floats()) all += std::abs(value);
  for (const float value : own_down.a.floats()) all += std::abs(value);
  EXPECT_NEAR(kept, all, 1e-9) << "padding is worth something";

  files.config["use_dora"] = true;
  const auto of_up = files.add_vector(module_of(1, Projection::up) + ".lora_magnitude_vector", 80);
  const auto of_down = files.add_vector(module_of(1, Projection::down) + ".lora_magnitude_vector", 64);
  files.write();
  const Adapter dora = read(files, *config);
  std::vector<float> spread(96, 0);
  for (size_t i = 0; i < real.size(); ++i) spread[static_cast<size_t>(real[i])] = of_up[i];
  EXPECT_EQ(pair_of(dora, 1, Projection::up).magnitude, spread);
  EXPECT_EQ(pair_of(dora, 1, Projection::down).magnitude, of_down);

  SyntheticAdapter other;
  other.config = tests::plain_adapter_config(2, 8, {"up_proj"});
  other.add_pair(module_of(1, Projection::up), 2, 64, 72);
  EXPECT_THAT(
      error_of(other, *config),
      HasSubstr("made for an MLP of 72 neurons, the base has 96: the checkpoint has 80 neurons that are not zero"));
}

// Random adapters over random shapes: B A of the parts, put together as the ranks do, is B A of the whole.
TEST(Adapter, IsCutIntoPartsThatMakeTheWhole) {
  std::mt19937 random(5);
  for (int round = 0; round < 30; ++round) {
    ModelConfig config = config_of();
    const int size = std::initializer_list<int>{1, 2, 4, 8}.begin()[random() % 4];
    config.intermediate_size = 8 * static_cast<int32_t>(4 + random() % 20);
    config.hidden_size = 16 * static_cast<int32_t>(1 + random() % 4);
    const auto plan = ShardPlan::make(config, size);
    ASSERT_TRUE(plan) << plan.error().message;
    const auto rank = static_cast<int64_t>(1 + random() % 9);
    SyntheticAdapter files(random());
    files.config = tests::plain_adapter_config(
        static_cast<int>(rank), 3, {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"});
    for (const Projection p : kProjections) {
      if (random() % 4 != 0 || p == Projection::q) {
        files.add_pair(module_of(1, p), rank, input_size(config, p), output_size(config, p));
      }
    }
    files.write();
    const Adapter whole = read(files, config);
    for (const Projection p : kProjections) {
      const auto& pair = whole.layers[1][static_cast<size_t>(p)];
      if (!pair) continue;
      const auto product = [](const LoraPair& l, int32_t n, int32_t k) {
        double sum = 0;
        for (int32_t r = 0; r < l.rank; ++r) {
          sum += static_cast<double>(l.b[static_cast<size_t>(n * l.rank + r)]) *
                 l.a[static_cast<size_t>(r * l.inputs + k)];
        }
        return sum * l.scale;
      };
      for (int32_t rank_index = 0; rank_index < size; ++rank_index) {
        const Adapter part = cut_adapter(whole, *plan, rank_index);
        const LoraPair& own = pair_of(part, 1, p);
        const Range outputs = plan->outputs(p, rank_index), inputs = plan->inputs(p, rank_index);
        ASSERT_EQ(own.outputs, outputs.size());
        ASSERT_EQ(own.inputs, inputs.size());
        for (int32_t n = 0; n < own.outputs; ++n) {
          for (int32_t k = 0; k < own.inputs; ++k) {
            ASSERT_EQ(product(own, n, k), product(*pair, outputs.begin + n, inputs.begin + k));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace lorikeet::model
