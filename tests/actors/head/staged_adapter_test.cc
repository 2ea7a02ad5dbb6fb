#include "actors/head/staged_adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <filesystem>

#include "actors/head/staging_memory.h"

namespace lorikeet::actors {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

StagedAdapter two_ranks(bool row_parallel) {
  StagedAdapter adapter;
  adapter.slices.resize(2);
  adapter.dora = {{row_parallel, {{6, 10}, {6, 10}}}, {false, {{}, {}}}};
  return adapter;
}

std::vector<DoraValues> norms(std::vector<float> first, std::vector<float> second) {
  return {{{{std::move(first)}, {{}}}}, {{{std::move(second)}, {{}}}}};
}

TEST(DoraFactors, AddTheSquaresOfAllRanksWhereInputsAreCut) {
  const auto factors = dora_factors(two_ranks(true), norms({1, 20}, {3, 5})).value();
  EXPECT_THAT(factors[0].pairs[0].values, ElementsAre(3.0F, 2.0F));
  EXPECT_THAT(factors[1].pairs[0].values, ElementsAre(3.0F, 2.0F));
  EXPECT_TRUE(factors[0].pairs[1].values.empty());
}

TEST(DoraFactors, KeepTheRanksApartWhereOutputsAreCut) {
  const auto factors = dora_factors(two_ranks(false), norms({4, 25}, {9, 100})).value();
  EXPECT_THAT(factors[0].pairs[0].values, ElementsAre(3.0F, 2.0F));
  EXPECT_THAT(factors[1].pairs[0].values, ElementsAre(2.0F, 1.0F));
}

TEST(DoraFactors, AreZeroForPaddedRows) {
  StagedAdapter adapter = two_ranks(false);
  adapter.dora[0].magnitude[1][0] = 0;
  const auto factors = dora_factors(adapter, norms({4, 25}, {0, 100})).value();
  EXPECT_THAT(factors[1].pairs[0].values, ElementsAre(0.0F, 1.0F));
}

TEST(DoraFactors, RefuseNormsThatCannotBe) {
  EXPECT_THAT(dora_factors(two_ranks(true), norms({1, 0}, {3, 0})).error().message, HasSubstr("squared norm 0"));
  EXPECT_FALSE(dora_factors(two_ranks(true), norms({1, std::nanf("")}, {3, 1})));
  EXPECT_THAT(dora_factors(two_ranks(true), norms({1}, {3, 1})).error().message, HasSubstr("rank 0 gives 1 norms"));
  EXPECT_THAT(dora_factors(two_ranks(true), norms({1, 1}, {3})).error().message, HasSubstr("rank 1 gives 1 norms"));
  auto few = norms({1, 1}, {3, 1});
  few[1].pairs.pop_back();
  EXPECT_THAT(dora_factors(two_ranks(true), few).error().message, HasSubstr("norms of 1 layers of 2"));
}

class StageExampleAdapter : public ::testing::Test {
 protected:
  const std::filesystem::path models_ = std::filesystem::path(LORIKEET_SOURCE_DIR) / "examples/models";
  const model::ModelConfig config_ = model::read_model_config(models_ / "tiny-qwen2-gptq-int4").value();
};

TEST_F(StageExampleAdapter, CutsASliceForEveryRankThatDecodesThere) {
  const auto plan = model::ShardPlan::make(config_, 2).value();
  const auto staged = stage_adapter(models_ / "adapters/kjv", plan, 512).value();
  ASSERT_EQ(staged->ranks(), 2u);
  EXPECT_EQ(staged->bytes, staged->slice(0).size() + staged->slice(1).size());
  EXPECT_EQ(staged->max_rank, 8);
  EXPECT_TRUE(staged->dora.empty());
  for (int rank = 0; rank < 2; ++rank) {
    const auto part =
        model::read_slice(staged->slice(static_cast<size_t>(rank)), plan, rank, model::SliceLayout::cpu_f32);
    ASSERT_TRUE(part) << part.error().message;
    EXPECT_EQ(part->digest, staged->digest);
  }
}

TEST_F(StageExampleAdapter, KeepsTheSlicesInSealedMemoryAndNothingBeside) {
  const auto plan = model::ShardPlan::make(config_, 2).value();
  const auto staged = stage_adapter(models_ / "adapters/kjv", plan, 512).value();
  ASSERT_NE(staged->memory(), nullptr);
  EXPECT_EQ(kernels::sealed_size(*staged->memory()).value(), staged->bytes);
  EXPECT_TRUE(staged->slices.empty());
}

TEST_F(StageExampleAdapter, PacksTheSameWhereverAndByHoweverManyThreads) {
  const auto plan = model::ShardPlan::make(config_, 2).value();
  for (const auto layout : {model::SliceLayout::cpu_f32, model::SliceLayout::cuda_f16}) {
    const auto one = stage_adapter(models_ / "adapters/kjv", plan, 512, {}, {layout, 3, true}).value();
    const auto other = stage_adapter(models_ / "adapters/kjv", plan, 512, {}, {layout, 1, false}).value();
    EXPECT_EQ(other->memory(), nullptr);
    EXPECT_EQ(other->digest, one->digest);
    EXPECT_EQ(other->bytes, one->bytes);
    for (size_t rank = 0; rank < 2; ++rank) {
      const auto a = one->slice(rank), b = other->slice(rank);
      EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end())) << rank;
    }
  }
}

TEST_F(StageExampleAdapter, TakesMemoryThatIsReadyAndPacksTheSameIntoIt) {
  const auto plan = model::ShardPlan::make(config_, 2).value();
  SpareStagingMemory spare(uint64_t{64} << 20);
  const auto first = stage_adapter(models_ / "adapters/kjv", plan, 512, {}, {.threads = 2, .spare = &spare}).value();
  spare.prepare(first->bytes, 2);
  const auto second = stage_adapter(models_ / "adapters/kjv", plan, 512, {}, {.threads = 2, .spare = &spare}).value();
  EXPECT_EQ(spare.bytes(), 0u) << "it has been taken";
  const auto a = first->region.bytes(), b = second->region.bytes();
  EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end()));
}

// From here on the kernel says that it has no page for any mapping (MADV_POPULATE_WRITE). False: it takes no filters.
bool run_out_of_pages() {
  constexpr uint32_t kPopulateWrite = 23;
  constexpr auto kCall = static_cast<uint32_t>(offsetof(seccomp_data, nr));
  constexpr auto kAdvice = static_cast<uint32_t>(offsetof(seccomp_data, args) + 2 * sizeof(uint64_t));
  std::array<sock_filter, 6> filter = {{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kCall),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_madvise, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kAdvice),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kPopulateWrite, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  const sock_fprog program{filter.size(), filter.data()};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

TEST_F(StageExampleAdapter, SaysThatTheHostHasNoMemoryForItInsteadOfDyingOfIt) {
  const auto plan = model::ShardPlan::make(config_, 2).value();
  const auto stage_without_pages = [&] {
    if (!run_out_of_pages()) {
      std::fputs("no filter", stderr);
      _exit(0);
    }
    const auto staged = stage_adapter(models_ / "adapters/kjv", plan, 512);
    std::fputs(staged ? "staged" : staged.error().message.c_str(), stderr);
    _exit(0);
  };
  EXPECT_EXIT(stage_without_pages(), ::testing::ExitedWithCode(0), "kjv: .* bytes of memory cannot be had|no filter");
}

TEST_F(StageExampleAdapter, RefusesARankAboveTheLimit) {
  const auto plan = model::ShardPlan::make(config_, 1).value();
  const auto staged = stage_adapter(models_ / "adapters/kjv", plan, 4);
  ASSERT_FALSE(staged);
  EXPECT_THAT(staged.error().message, HasSubstr("8"));
}

TEST_F(StageExampleAdapter, SaysWhatIsMissing) {
  const auto plan = model::ShardPlan::make(config_, 1).value();
  EXPECT_THAT(stage_adapter("/nowhere", plan, 512).error().message, HasSubstr("/nowhere"));
}

}  // namespace
}  // namespace lorikeet::actors
