// The forward pass on a CUDA device against the committed reference outputs and against itself.
#include "model/forward/cuda_model.h"

#include <glog/logging.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "comm/collective/group.h"
#include "tests/model/forward/cuda_fixture.h"
#include "tests/model/forward/cuda_sequences.h"
#include "tests/model/forward/golden_run.h"
#include "tests/tolerance.h"

namespace lorikeet::model {
namespace {

using kernels::Dtype;
using ::testing::HasSubstr;
using tests::load_whole;
using tests::plan_of;
using tests::TestSequence;

constexpr int32_t kBlocks = 256;

CudaModelOptions small_options(Dtype dtype) {
  CudaModelOptions options;
  options.max_num_seqs = 12;
  options.max_num_batched_tokens = 256;
  options.max_model_len = 512;
  options.dtype = dtype;
  options.kv_dtype = dtype == Dtype::f16 ? kernels::KvDtype::f16 : kernels::KvDtype::bf16;
  options.num_slots = 4;
  return options;
}

class CudaModelTest : public tests::OnCuda {
 protected:
  static std::unique_ptr<CudaModel> started(const tests::GoldenCheckpoint& checkpoint,
                                            const CudaModelOptions& options) {
    return tests::start_whole(checkpoint, options, kBlocks);
  }

  // A prompt that is not one of the reference's.
  static std::vector<int32_t> random_prompt(size_t size, uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<int32_t> ids(size);
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % 2000);
    return ids;
  }
};

class ExampleOnCuda : public CudaModelTest, public testing::WithParamInterface<Dtype> {};

TEST_P(ExampleOnCuda, AgreesWithTheReference) {
  const auto checkpoint = tests::example_checkpoint();
  const auto model = started(checkpoint, small_options(GetParam()));
  tests::GoldenRun run(checkpoint, plan_of(checkpoint), 0, *model, kBlocks);
  EXPECT_EQ(run.differences(GetParam() == Dtype::f16 ? tests::kHalfLogprobTolerance : tests::kBfloat16LogprobTolerance),
            "");
  EXPECT_GT(model->graph_replays(), 1000);
}

INSTANTIATE_TEST_SUITE_P(Types, ExampleOnCuda, testing::Values(Dtype::f16, Dtype::bf16),
                         [](const auto& type) { return std::string(name_of(type.param)); });

class EveryFormatOnCuda : public CudaModelTest, public testing::WithParamInterface<std::tuple<std::string, Dtype>> {};

TEST_P(EveryFormatOnCuda, AgreesWithTheReference) {
  const auto& [name, dtype] = GetParam();
  const auto checkpoint = tests::format_checkpoint(name);
  const auto model = started(checkpoint, small_options(dtype));
  tests::GoldenRun run(checkpoint, plan_of(checkpoint), 0, *model, kBlocks);
  EXPECT_EQ(run.differences(dtype == Dtype::f16 ? tests::kHalfFormatLogprobTolerance
                                                : tests::kBfloat16FormatLogprobTolerance),
            "");
}

INSTANTIATE_TEST_SUITE_P(Formats, EveryFormatOnCuda,
                         testing::Combine(testing::ValuesIn(tests::format_names()),
                                          testing::Values(Dtype::f16, Dtype::bf16)),
                         [](const auto& format) {
                           return tests::test_name_of(std::get<0>(format.param) + "_" +
                                                      std::string(name_of(std::get<1>(format.param))));
                         });

TEST_F(CudaModelTest, KeepsKeysAndValuesInEightBits) {
  const auto checkpoint = tests::example_checkpoint();
  CudaModelOptions options = small_options(Dtype::f16);
  options.kv_dtype = kernels::KvDtype::f8_e4m3;
  const auto model = started(checkpoint, options);
  // A byte an element instead of two, and a scale for every head of a position.
  const auto head_dim = static_cast<uint64_t>(plan_of(checkpoint).config().head_dim);
  EXPECT_EQ(model->kv_block_bytes() * 2 * head_dim,
            load_whole(checkpoint, small_options(Dtype::f16))->kv_block_bytes() * (head_dim + sizeof(float)));
  tests::GoldenRun run(checkpoint, plan_of(checkpoint), 0, *model, kBlocks);
  EXPECT_EQ(run.differences(tests::kFp8LogprobTolerance), "");
}

TEST_F(CudaModelTest, GivesARowTheSameBitsAloneAndInABatch) {
  const auto checkpoint = tests::example_checkpoint();
  const auto model = started(checkpoint, small_options(Dtype::f16));
  const tests::GoldenRun adapters(checkpoint, plan_of(checkpoint), 0, *model, kBlocks);  // slots 0, 1, 2
  constexpr int kSteps = 24;
  const auto sequences = [] {
    std::vector<TestSequence> made;
    for (int32_t i = 0; i < 11; ++i) {
      made.emplace_back(random_prompt(static_cast<size_t>(3 + 5 * i), static_cast<uint32_t>(i)), 16 * i, i % 4 - 1);
      if (i % 3 == 1) {
        made.back().sampling.temperature = 0.8F;
        made.back().sampling.seed = static_cast<uint64_t>(i);
        if (i % 2 == 0) made.back().sampling.top_k = 30;
      }
    }
    return made;
  };
  std::vector<TestSequence> alone = sequences();
  for (TestSequence& sequence : alone) steps_alone(*model, sequence, kSteps);
  std::vector<TestSequence> together = sequences();
  std::vector<TestSequence*> batch;
  for (TestSequence& sequence : together) {
    steps_alone(*model, sequence, 1);  // prompts by themselves: other products serve more than 64 tokens at once
    batch.push_back(&sequence);
  }
  for (int i = 1; i < kSteps; ++i) {
    step(*model, batch);
    std::rotate(batch.begin(), batch.begin() + 1, batch.end());
  }
  int different = 0;
  for (size_t i = 0; i < alone.size(); ++i) different += differing(alone[i], together[i]);
  EXPECT_EQ(different, 0) << "of " << alone.size() * kSteps << " outputs";
}

TEST_F(CudaModelTest, ServesAdaptersThatComeAndGoFromTheSameGraphs) {
  const auto checkpoint = tests::example_checkpoint();
  const auto model = started(checkpoint, small_options(Dtype::f16));
  const auto parts = tests::cut_adapters(checkpoint, plan_of(checkpoint), 0, *model, [](std::vector<float>&) {});
  ASSERT_GE(parts.size(), 3U);
  const std::vector<int32_t> prompt = random_prompt(20, 4);
  std::map<std::string, TestSequence> expected;
  for (const auto& [name, part] : parts) {
    ASSERT_TRUE(model->set_adapter(3, part));
    steps_alone(*model, expected.emplace(name, TestSequence(prompt, 0, 3)).first->second, 10);
  }
  TestSequence base(prompt, 0);
  steps_alone(*model, base, 10);

  const int64_t captured = model->graphs_captured();
  const int64_t replays = model->graph_replays();
  int32_t round = 0;
  for (const auto& [name, part] : parts) {
    const auto& [other_name, other] = *parts.rbegin();
    const int32_t slot = round++ % 3;
    ASSERT_TRUE(model->set_adapter(slot, part));
    TestSequence with(prompt, 0, slot), without(prompt, 16);
    steps_alone(*model, with, 1);
    steps_alone(*model, without, 1);
    TestSequence* both[] = {&with, &without};
    for (int i = 1; i < 10; ++i) {
      step(*model, both);
      ASSERT_TRUE(model->set_adapter((slot + 1) % 3, i % 2 == 0 ? other : part));  // not in use
      if (i % 3 == 0) model->clear_adapter((slot + 1) % 3);
    }
    EXPECT_EQ(differing(with, expected.at(name)), 0) << name;
    EXPECT_EQ(differing(without, base), 0);
  }
  EXPECT_EQ(model->graphs_captured(), captured);
  EXPECT_EQ(model->graph_replays(), replays + 9 * static_cast<int64_t>(parts.size()));
}

TEST_F(CudaModelTest, TakesPackedAdaptersToTheSameTokens) {
  const auto checkpoint = tests::example_checkpoint();
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16}) {
    const auto model = started(checkpoint, small_options(dtype));
    const auto parts = tests::cut_adapters(checkpoint, plan_of(checkpoint), 0, *model, [](std::vector<float>&) {});
    const std::vector<int32_t> prompt = random_prompt(20, 4);
    int packed = 0;
    for (const auto& [name, part] : parts) {
      if (part.uses_dora()) continue;
      ASSERT_TRUE(model->set_adapter(1, part));
      TestSequence expected(prompt, 0, 1), got(prompt, 0, 2);
      steps_alone(*model, expected, 10);
      const std::vector<AdapterSlice> slices = {plan_slice(part, plan_of(checkpoint), 0, model->slice_layout())};
      std::vector<uint8_t> bytes(slices[0].bytes);
      uint8_t* const to = bytes.data();
      ASSERT_TRUE(write_slices(part, plan_of(checkpoint), slices, {&to, 1}, 1));
      ASSERT_TRUE(model->set_slice(2, slices[0], {bytes.data()}));
      steps_alone(*model, got, 10);
      EXPECT_EQ(differing(got, expected), 0) << name;
      ++packed;
    }
    EXPECT_GT(packed, 0);
  }
}

TEST_F(CudaModelTest, AppliesAdaptersByTheirRanksAndNotByTheHighestThatIsServed) {
  const auto checkpoint = tests::example_checkpoint();
  CudaModelOptions options = small_options(Dtype::f16);
  std::vector<TestSequence> by_highest;
  for (const int32_t highest : {64, 512}) {
    options.max_lora_rank = highest;
    const auto model = started(checkpoint, options);
    const auto parts = tests::cut_adapters(checkpoint, plan_of(checkpoint), 0, *model, [](std::vector<float>&) {});
    ASSERT_TRUE(model->set_adapter(1, parts.begin()->second));
    TestSequence sequence(random_prompt(20, 4), 0, 1);
    steps_alone(*model, sequence, 10);
    // The prompt's step goes through kernels of their own; and so do all where other processes may be on the device.
    const CudaModel::LoraSteps steps = model->lora_steps();
    EXPECT_EQ(steps.fused + steps.apart, 10);
    EXPECT_EQ(steps.fused, kernels::device_properties().multi_process_service ? 0 : 9) << "highest rank " << highest;
    by_highest.push_back(sequence);
  }
  EXPECT_EQ(differing(by_highest[0], by_highest[1]), 0);
}

TEST_F(CudaModelTest, ReportsARowWithoutNumbersAndAnswersItsNeighboursAsEver) {
  const auto checkpoint = tests::example_checkpoint();
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16}) {
    const auto model = started(checkpoint, small_options(dtype));
    const auto parts = tests::cut_adapters(checkpoint, plan_of(checkpoint), 0, *model, [](std::vector<float>&) {});
    Adapter diverged = parts.begin()->second;
    for (LoraLayer& layer : diverged.layers) {
      for (std::optional<LoraPair>& pair : layer) {
        if (pair) pair->scale = 3e38F;
      }
    }
    ASSERT_TRUE(model->set_adapter(0, diverged));
    ASSERT_TRUE(model->set_adapter(1, parts.begin()->second));
    TestSequence alone(random_prompt(9, 2), 0, 1);
    steps_alone(*model, alone, 6);
    TestSequence neighbour(random_prompt(9, 2), 0, 1), out_of_range(random_prompt(9, 3), 32, 0);
    TestSequence filtered(random_prompt(9, 3), 64, 0);
    filtered.sampling.temperature = 0.8F;
    filtered.sampling.top_p = 0.9F;
    for (TestSequence* s : {&neighbour, &out_of_range, &filtered}) steps_alone(*model, *s, 1);
    TestSequence* all[] = {&out_of_range, &neighbour, &filtered};
    for (int i = 1; i < 6; ++i) step(*model, all);
    EXPECT_EQ(differing(alone, neighbour), 0);
    for (const TestSequence* s : {&out_of_range, &filtered}) {
      for (const RowOutput& output : s->outputs) {
        // fp16 stores its largest number instead of an infinity; in bf16 infinities meet and leave no number.
        if (dtype == Dtype::f16) {
          EXPECT_GE(output.token_id, 0);
        } else {
          EXPECT_EQ(output.token_id, -1);
        }
      }
    }
  }
}

TEST_F(CudaModelTest, TakesATokenThatIsNotKnownYetAsOneThatIs) {
  const auto model = started(tests::example_checkpoint(), small_options(Dtype::f16));
  const auto make = [](int32_t first_block) {
    TestSequence sequence(random_prompt(9, 7), first_block);
    sequence.sampling.temperature = 0.9F;
    sequence.sampling.seed = 11;
    sequence.sampling.repetition_penalty = 1.3F;
    sequence.sampling.frequency_penalty = 0.4F;
    return sequence;
  };
  const auto count = [](TestSequence& sequence, size_t known) {
    std::map<int32_t, TokenCount> counts;
    for (size_t i = 0; i < known; ++i) {
      TokenCount& c = counts[sequence.ids[i]];
      c.token_id = sequence.ids[i];
      if (i < static_cast<size_t>(sequence.prompt_size)) {
        c.in_prompt = true;
      } else {
        ++c.in_output;
      }
    }
    sequence.counts.clear();
    for (const auto& [id, c] : counts) sequence.counts.push_back(c);
  };
  constexpr int kSteps = 20;
  TestSequence known = make(0);
  TestSequence* one[] = {&known};
  for (int i = 0; i < kSteps; ++i) {
    count(known, known.ids.size());
    step(*model, one);
  }
  TestSequence pending = make(16);
  TestSequence* two[] = {&pending};
  count(pending, pending.ids.size());
  begin(*model, two);
  for (int i = 1; i < kSteps; ++i) {
    count(pending, pending.ids.size() - 1);  // the last one is drawn by the step in flight
    begin(*model, two);
    finish(*model, two);
  }
  finish(*model, two);
  EXPECT_EQ(differing(known, pending), 0);
}

TEST_F(CudaModelTest, TakesAConstraintWhileItComputesAsOneThatItHadBefore) {
  const auto checkpoint = tests::example_checkpoint();
  const auto model = started(checkpoint, small_options(Dtype::f16));
  ASSERT_TRUE(model->constrains_later());
  const auto words = static_cast<size_t>(kernels::mask_words(plan_of(checkpoint).config().vocab_size));
  constexpr int kSteps = 12;
  // Every step allows other tokens, so that one that takes its mask too early, or the step before's, is found out.
  std::vector<std::vector<uint32_t>> masks(kSteps, std::vector<uint32_t>(words));
  for (int i = 0; i < kSteps; ++i) {
    for (size_t w = 0; w < words; ++w)
      masks[static_cast<size_t>(i)][w] = 0x01010101U << ((static_cast<size_t>(i) + w) % 8);
  }
  const std::vector<kernels::TokenBias> biases = {{5, -INFINITY, -1}, {9, 3, -1}};
  const auto make = [&](int32_t first_block) {
    TestSequence sequence(random_prompt(9, 7), first_block);
    sequence.sampling.temperature = 0.9F;
    sequence.sampling.seed = 11;
    return sequence;
  };
  TestSequence known = make(0), free_known = make(16);
  TestSequence* both[] = {&known, &free_known};
  for (int i = 0; i < kSteps; ++i) {
    known.constraint = {masks[static_cast<size_t>(i)], biases};
    step(*model, both);
    EXPECT_NE(masks[static_cast<size_t>(i)][static_cast<size_t>(known.outputs.back().token_id) / 32] >>
                      (known.outputs.back().token_id % 32) &
                  1U,
              0U);
  }
  TestSequence later = make(32), free_later = make(48);
  TestSequence* two[] = {&later, &free_later};
  later.constraint = {masks[0], biases};
  begin(*model, two);
  later.constraint = {{}, biases};
  later.constrained_later = true;
  for (int i = 1; i < kSteps; ++i) {
    begin(*model, two);
    finish(*model, two);
    const std::vector<kernels::TokenConstraint> constraints = {{masks[static_cast<size_t>(i)], biases}, {}};
    model->constrain_step(constraints);
  }
  finish(*model, two);
  EXPECT_EQ(differing(known, later), 0);
  EXPECT_EQ(differing(free_known, free_later), 0);
}

TEST_F(CudaModelTest, MakesLogprobsOfLongPromptsInPortions) {
  const auto checkpoint = tests::example_checkpoint();
  const ShardPlan plan = plan_of(checkpoint);
  const auto model = started(checkpoint, small_options(Dtype::f16));
  RankModelOptions cpu_options;
  cpu_options.num_blocks = kBlocks;
  auto weights = load_rank_weights(checkpoint.directory, plan, 0);
  ASSERT_TRUE(weights);
  auto group = std::shared_ptr<comm::Collective>(std::move(comm::make_local_group(1)[0]));
  auto cpu = make_cpu_model(*std::move(weights), plan, cpu_options, group);
  ASSERT_TRUE(cpu) << cpu.error().message;

  const TestSequence sequence(random_prompt(250, 3), 0);
  std::vector<int32_t> targets(sequence.ids.begin() + 1, sequence.ids.end());
  targets.push_back(-1);
  targets[100] = -1;
  BatchRow row;
  row.token_ids = sequence.ids;
  row.prompt_size = sequence.prompt_size;
  row.block_table = sequence.blocks;
  row.sample = true;
  row.sampling.temperature = 0;
  row.sampling.logprobs = 0;
  row.logprob_targets = targets;
  const auto run = [&](RankModel& on) {
    on.begin_step({&row, 1});
    return on.finish_step().front();
  };
  const RowOutput expected = run(**cpu), actual = run(*model);
  ASSERT_EQ(actual.target_logprobs.size(), expected.target_logprobs.size());
  for (size_t i = 0; i < targets.size(); ++i) {
    EXPECT_NEAR(actual.target_logprobs[i], expected.target_logprobs[i], tests::kHalfLogprobTolerance) << i;
  }
  EXPECT_EQ(actual.token_id, expected.token_id);
  ASSERT_EQ(actual.logprobs.size(), 1U);
  EXPECT_NEAR(actual.logprobs[0].logprob, expected.logprobs[0].logprob, tests::kHalfLogprobTolerance);
}

TEST_F(CudaModelTest, MixesPromptsWithSequencesThatAreUnderWay) {
  const auto model = started(tests::example_checkpoint(), small_options(Dtype::f16));
  TestSequence alone(random_prompt(12, 1), 0), late_alone(random_prompt(30, 2), 16);
  steps_alone(*model, alone, 6);
  steps_alone(*model, late_alone, 5);
  TestSequence early(random_prompt(12, 1), 0), late(random_prompt(30, 2), 16);
  steps_alone(*model, early, 1);
  TestSequence* both[] = {&early, &late};
  for (int i = 0; i < 5; ++i) step(*model, both);
  // Up to 64 tokens in a step, so the bits are the same.
  EXPECT_EQ(differing(alone, early), 0);
  EXPECT_EQ(differing(late_alone, late), 0);
}

TEST_F(CudaModelTest, GoesOnAfterAReset) {
  const auto model = started(tests::example_checkpoint(), small_options(Dtype::f16));
  TestSequence before(random_prompt(12, 1), 0);
  steps_alone(*model, before, 4);
  const int64_t captured = model->graphs_captured();
  TestSequence* left[] = {&before};
  TestSequence in_flight(random_prompt(12, 1), 32);
  left[0] = &in_flight;
  begin(*model, left);
  ASSERT_TRUE(model->reset(nullptr));
  EXPECT_EQ(model->graphs_captured(), 2 * captured);
  TestSequence after(random_prompt(12, 1), 0);
  steps_alone(*model, after, 4);
  EXPECT_EQ(differing(before, after), 0);
}

TEST_F(CudaModelTest, AStepOfNobodyHasNoOutputs) {
  const auto model = started(tests::example_checkpoint(), small_options(Dtype::f16));
  model->begin_step({});
  EXPECT_TRUE(model->finish_step().empty());
}

TEST_F(CudaModelTest, SaysWhatItCannotServe) {
  const auto checkpoint = tests::example_checkpoint();
  const ShardPlan plan = plan_of(checkpoint);
  const auto refused = [&](auto change) {
    CudaModelOptions options = small_options(Dtype::f16);
    change(options);
    const auto model = load_cuda_model(nullptr, plan, 0, options);
    return model ? "it loaded" : model.error().message;
  };
  EXPECT_THAT(refused([](auto& o) { o.block_size = 12; }), HasSubstr("KV blocks of 12 positions"));
  EXPECT_THAT(refused([](auto& o) { o.max_num_seqs = 2000; }), HasSubstr("2000 sequences"));
  EXPECT_THAT(refused([](auto& o) { o.max_num_batched_tokens = 4; }), HasSubstr("4 tokens cannot hold"));

  const auto model = load_whole(checkpoint, small_options(Dtype::f16));
  const auto start = model->start(100'000'000, nullptr);
  ASSERT_FALSE(start);
  EXPECT_THAT(start.error().message, HasSubstr("out of GPU memory: the KV cache needs"));
  EXPECT_TRUE(model->start(kBlocks, nullptr)) << "the failure leaves the model as it was";
}

TEST_F(CudaModelTest, RunsOnRandomWeights) {
  CudaModelOptions options = small_options(Dtype::f16);
  options.time_steps = true;
  auto model = load_cuda_model(nullptr, plan_of(tests::example_checkpoint()), 0, options);
  ASSERT_TRUE(model) << model.error().message;
  ASSERT_TRUE((*model)->start(kBlocks, nullptr));
  TestSequence sequence(random_prompt(40, 1), 0);
  steps_alone(**model, sequence, 8);
  for (const RowOutput& output : sequence.outputs) {
    EXPECT_GE(output.token_id, 0);
    EXPECT_LE(output.logprobs.at(0).logprob, 0);  // NaN is not
  }
  EXPECT_GT((*model)->step_times().ms, 0);
  EXPECT_GE((*model)->step_times().idle_ms, 0);
}

TEST(KvCacheBudget, IsWhatIsLeftOfTheShare) {
  const kernels::DeviceMemory memory{80ULL << 30, 100ULL << 30};
  const auto budget = kv_cache_budget(memory, 20ULL << 30, 0.5);
  ASSERT_TRUE(budget);
  EXPECT_LT(*budget, 30ULL << 30);
  EXPECT_GT(*budget, 28ULL << 30);
  const auto all = kv_cache_budget({10ULL << 30, 100ULL << 30}, 20ULL << 30, 1);
  ASSERT_TRUE(all);
  EXPECT_LT(*all, 10ULL << 30) << "others have taken what is not free";
  EXPECT_THAT(kv_cache_budget(memory, 20ULL << 30, 0.2).error().message, HasSubstr("nothing is left"));
  EXPECT_FALSE(kv_cache_budget({0, 100ULL << 30}, 20ULL << 30, 0.9));
}

}  // namespace
}  // namespace lorikeet::model
