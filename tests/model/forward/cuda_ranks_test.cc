// The CUDA model on several ranks, which are processes that share the GPUs of this host; NCCL takes several ranks on
// one GPU only where it believes them on different hosts (NCCL_HOSTID). This process itself stays off the GPU, since a
// forked child could not use it then.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <map>
#include <memory>
#include <optional>
#include <string_view>

#include "comm/collective/peer_collective.h"
#include "model/forward/cuda_model.h"
#include "tests/comm/collective/gpu_ranks.h"
#include "tests/model/forward/cuda_fixture.h"
#include "tests/model/forward/golden_run.h"
#include "tests/model/forward/two_shot_group.h"
#include "tests/tolerance.h"

namespace lorikeet::model {
namespace {

using kernels::Dtype;
using ::testing::Each;

constexpr int32_t kBlocks = 64;

// Sums of floats over the ranks, through the device.
tests::AddOverRanks add_over(comm::DeviceCollective& group) {
  return [&group](std::vector<float>& values) {
    const auto stream = kernels::Stream::make();
    const auto event = kernels::Event::make();
    const auto buffer = kernels::DeviceBuffer::allocate(values.size() * sizeof(float), "a test");
    CHECK(stream && event && buffer);
    kernels::copy_to_device(buffer->data(), values.data(), buffer->bytes(), *stream);
    group.all_reduce(buffer->data(), values.size(), Dtype::f32, *stream);
    kernels::copy_to_host(values.data(), buffer->data(), buffer->bytes(), *stream);
    event->record(*stream);
    group.wait(*event);
  };
}

// Small enough for every checkpoint here.
CudaModelOptions options_of(int size, Dtype dtype) {
  CudaModelOptions options;
  options.max_num_seqs = 2;
  options.max_num_batched_tokens = 256;
  options.max_model_len = 512;
  options.dtype = dtype;
  options.kv_dtype = dtype == Dtype::f16 ? kernels::KvDtype::f16 : kernels::KvDtype::bf16;
  options.num_slots = 4;
  options.shares_device = kernels::device_count().value() < size;
  return options;
}

using Group = std::shared_ptr<comm::DeviceCollective>;

// One rank's answers to all cases: where they differ from the reference.
std::string run_rank(const Group& group, const tests::GoldenCheckpoint& checkpoint, Dtype dtype, bool in_two_shots,
                     double tolerance) {
  const int rank = group->rank(), size = group->size();
  const auto plan = tests::plan_of_ranks(checkpoint.directory, size);
  if (!plan) return plan.error().message;
  const auto model = tests::load_rank(checkpoint.directory, *plan, rank, options_of(size, dtype));
  if (!model) return model.error().message;
  const auto two_shots = in_two_shots ? std::make_shared<tests::TwoShotGroup>(group) : nullptr;
  const Group shared = in_two_shots ? two_shots : group;
  if (const auto start = (*model)->start(kBlocks, shared); !start) return start.error().message;
  tests::GoldenRun run(checkpoint, *plan, rank, **model, kBlocks, add_over(*shared));
  const std::string differences = run.differences(tolerance);
  if (in_two_shots && two_shots->sums_in_two_shots() == 0) return "no sum was made in two shots";
  return differences;
}

// The log-probabilities of a prompt's tokens and the tokens that follow it.
Result<std::vector<float>> answers(const Group& group, bool in_two_shots) {
  constexpr int32_t kPrompt = 150;
  constexpr int32_t kSteps = 6;
  const auto checkpoint = tests::example_checkpoint().directory;
  const auto plan = tests::plan_of_ranks(checkpoint, group->size());
  if (!plan) return tl::unexpected(plan.error());
  const auto model = tests::load_rank(checkpoint, *plan, group->rank(), options_of(group->size(), Dtype::f16));
  if (!model) return tl::unexpected(model.error());
  const Group shared = in_two_shots ? std::make_shared<tests::TwoShotGroup>(group) : group;
  if (const auto start = (*model)->start(kBlocks, shared); !start) return tl::unexpected(start.error());
  const tests::LongPrompt prompt(kPrompt, kBlocks, plan->config().vocab_size);
  BatchRow row = prompt.row();
  row.sample = true;
  row.sampling.temperature = 0;
  (*model)->begin_step({&row, 1});
  RowOutput output = (*model)->finish_step()[0];
  std::vector<float> all = output.target_logprobs;
  all.pop_back();  // nothing follows the last token
  row.logprob_targets = {};
  for (int32_t i = 0; i < kSteps; i++) {
    all.push_back(static_cast<float>(output.token_id));
    row.start = kPrompt + i;
    row.token_ids = {&output.token_id, 1};
    (*model)->begin_step({&row, 1});
    output = (*model)->finish_step()[0];
  }
  return all;
}

// The bits of a rank's answers, which are the same in one shot and in two, each time.
std::string bits_of_answers(const Group& group) {
  const auto one = answers(group, false);
  if (!one) return one.error().message;
  for (const char* which : {"two shots", "two shots again"}) {
    const auto two = answers(group, true);
    if (!two) return two.error().message;
    if (*two != *one) return fmt::format("rank {}: other bits in {}", group->rank(), which);
  }
  std::string bits = "bits";
  for (const float value : *one) bits += fmt::format(" {:x}", std::bit_cast<uint32_t>(value));
  return bits;
}

// Checkpoint, ranks, activations, and whether every sum is made in two shots.
using GroupCase = std::tuple<std::string, int, Dtype, bool>;

const std::vector<GroupCase>& groups() {
  static const std::vector<GroupCase> all = [] {
    std::vector<GroupCase> made = {{"example", 2, Dtype::f16, false},  {"example", 4, Dtype::f16, false},
                                   {"example", 2, Dtype::bf16, false}, {"example", 2, Dtype::f16, true},
                                   {"example", 4, Dtype::f16, true},   {"example", 4, Dtype::bf16, true}};
    for (const std::string& name : tests::format_names()) made.emplace_back(name, 2, Dtype::f16, false);
    return made;
  }();
  return all;
}

// The answer of one rank to a question: the number of one of groups(), or what its bits are.
std::string answer(const Group& group, const std::string& question) {
  if (question == "bits") return bits_of_answers(group);
  const auto& [name, size, dtype, in_two_shots] = groups().at(std::stoul(question));
  const bool example = name == "example";
  const double tolerance = dtype == Dtype::f16
                               ? (example ? tests::kHalfLogprobTolerance : tests::kHalfFormatLogprobTolerance)
                               : tests::kBfloat16LogprobTolerance;
  return run_rank(group, example ? tests::example_checkpoint() : tests::format_checkpoint(name), dtype, in_two_shots,
                  tolerance);
}

// The ranks' answers, which should be alike and begin so; where they do not, the next test has new ranks.
std::vector<std::string> ask_ranks(int size, const std::string& question, std::string_view begin) {
  static std::map<int, std::unique_ptr<comm::StandingRanks>> standing;
  std::unique_ptr<comm::StandingRanks>& ranks = standing[size];
  if (ranks == nullptr) ranks = std::make_unique<comm::StandingRanks>(size, std::nullopt);
  std::vector<std::string> answers = ranks->run(answer, question);
  const auto alike = std::count(answers.begin(), answers.end(), answers[0]);
  if (alike != size || !answers[0].starts_with(begin) || (begin.empty() && !answers[0].empty())) ranks = nullptr;
  return answers;
}

class CudaRanks : public testing::TestWithParam<size_t> {
 protected:
  void SetUp() override {
    if (!comm::no_device().empty()) GTEST_SKIP() << comm::no_device();
  }
};

TEST_P(CudaRanks, AgreeWithTheReference) {
  EXPECT_THAT(ask_ranks(std::get<1>(groups()[GetParam()]), std::to_string(GetParam()), ""), Each(""));
}

std::string name_of_group(const testing::TestParamInfo<size_t>& test) {
  const auto& [name, size, dtype, in_two_shots] = groups()[test.param];
  return tests::test_name_of(
      fmt::format("{}_tp{}_{}{}", name, size, name_of(dtype), in_two_shots ? "_in_two_shots" : ""));
}

INSTANTIATE_TEST_SUITE_P(Groups, CudaRanks, testing::Range(size_t{0}, groups().size()), name_of_group);

TEST(CudaTwoShots, HaveTheBitsOfOneShotOnEveryRankAndInEveryRun) {
  if (!comm::no_device().empty()) GTEST_SKIP() << comm::no_device();
  const std::vector<std::string> reports = ask_ranks(4, "bits", "bits ");
  EXPECT_THAT(reports[0], testing::StartsWith("bits "));
  EXPECT_THAT(reports, Each(reports[0]));
}

}  // namespace
}  // namespace lorikeet::model
