#include "model/checkpoint/resident_weights.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "model/checkpoint/file_reader.h"
#include "tests/model/checkpoint/safetensors_writer.h"
#include "tests/model/checkpoint/same_weights.h"
#include "tests/model/checkpoint/synthetic_checkpoint.h"

namespace lorikeet::model {
namespace {

using kernels::ResidentMemory;
using ::testing::HasSubstr;
using tests::expect_same;
using tests::plan_of;
using tests::same;
using tests::SyntheticCheckpoint;
using tests::SyntheticOptions;

std::shared_ptr<const ResidentMemory> loaded(const std::filesystem::path& dir, const ShardPlan& plan, int rank,
                                             const std::string& origin, int threads = 1) {
  auto resident = ResidentWeights::make(plan, rank, origin).value();
  const auto ok = load_rank_weights_into(*resident, dir, plan, rank, {}, threads);
  EXPECT_TRUE(ok) << ok.error().message;
  return std::make_shared<ResidentMemory>(resident->seal().value());
}

// What a successor maps, after its predecessor has ended.
std::shared_ptr<const ResidentMemory> inherited(std::shared_ptr<const ResidentMemory> of) {
  Descriptor held(fcntl(of->descriptor().get(), F_DUPFD_CLOEXEC, 3));
  of.reset();
  return std::make_shared<ResidentMemory>(ResidentMemory::attach(std::move(held)).value());
}

TEST(ResidentWeights, AreThoseOfTheCheckpointOnEveryRankAndInEveryForm) {
  for (const int kind : {0, 1, 2, 3, 4}) {
    SyntheticOptions options;
    if (kind == 1) options.act_order = true;
    if (kind == 2) options.bits = 8;
    if (kind == 3) options.tied = true;
    if (kind == 4) {
      options.architecture = Architecture::qwen3;
      options.method = QuantMethod::none;
    }
    const SyntheticCheckpoint checkpoint(options);
    const ShardPlan plan = plan_of(checkpoint.dir(), 2);
    for (const int rank : {0, 1}) {
      SCOPED_TRACE(testing::Message() << "kind " << kind << ", rank " << rank);
      const auto memory = inherited(loaded(checkpoint.dir(), plan, rank, "o", 2));
      const auto attached = attach_weights(memory, plan, rank, "o");
      ASSERT_TRUE(attached) << attached.error().message;
      ASSERT_NO_FATAL_FAILURE(expect_same(*attached, load_rank_weights(checkpoint.dir(), plan, rank).value()));
    }
  }
}

TEST(ResidentWeights, NeedNoByteOfTheCheckpointAgain) {
  const SyntheticCheckpoint checkpoint({});
  const ShardPlan plan = plan_of(checkpoint.dir(), 1);
  auto memory = loaded(checkpoint.dir(), plan, 0, "o");
  for (const auto& file : std::filesystem::directory_iterator(checkpoint.dir())) std::filesystem::remove(file);
  const uint64_t before = bytes_read_from_files();
  EXPECT_TRUE(attach_weights(inherited(std::move(memory)), plan, 0, "o"));
  EXPECT_EQ(bytes_read_from_files(), before);
}

TEST(ResidentWeights, StayWhileSomebodyUsesThem) {
  const SyntheticCheckpoint checkpoint({});
  const ShardPlan plan = plan_of(checkpoint.dir(), 1);
  auto memory = loaded(checkpoint.dir(), plan, 0, "o");
  const std::weak_ptr<const ResidentMemory> mapped = memory;
  auto weights = attach_weights(std::move(memory), plan, 0, "o").value();
  EXPECT_FALSE(mapped.expired());
  weights = {};
  EXPECT_TRUE(mapped.expired());
}

TEST(ResidentWeights, AreRefusedByWhomTheyAreNotFor) {
  const SyntheticCheckpoint checkpoint({});
  const ShardPlan two = plan_of(checkpoint.dir(), 2), one = plan_of(checkpoint.dir(), 1);
  const auto memory = loaded(checkpoint.dir(), two, 1, "auto:abc");
  const auto refusal = [&](const ShardPlan& plan, int rank, const std::string& origin) {
    const auto weights = attach_weights(memory, plan, rank, origin);
    return weights ? std::string() : weights.error().message;
  };
  EXPECT_EQ(refusal(two, 1, "auto:abc"), "");
  EXPECT_EQ(refusal(two, 0, "auto:abc"), "resident weights: their rank is 1, not 0");
  EXPECT_EQ(refusal(one, 0, "auto:abc"), "resident weights: their rank is 1, not 0");
  EXPECT_EQ(refusal(two, 1, "auto:abd"), "resident weights: their origin is auto:abc, not auto:abd");
}

TEST(ResidentWeights, HaveAnotherOriginWhereTheConfigurationOrTheLoadingDiffers) {
  const SyntheticCheckpoint checkpoint({});
  const std::string before = weights_origin(checkpoint.dir(), "auto").value();
  EXPECT_EQ(weights_origin(checkpoint.dir(), "auto").value(), before);
  EXPECT_NE(weights_origin(checkpoint.dir(), "dummy").value(), before);
  std::ofstream(checkpoint.dir() / "config.json", std::ios::app) << "\n";
  EXPECT_NE(weights_origin(checkpoint.dir(), "auto").value(), before);
  std::filesystem::remove(checkpoint.dir() / "config.json");
  EXPECT_FALSE(weights_origin(checkpoint.dir(), "auto"));
}

// Sealed by somebody who lies.
std::shared_ptr<const ResidentMemory> forged(std::string_view image) {
  auto memory = ResidentMemory::make("forged").value();
  EXPECT_TRUE(memory.write(0, {reinterpret_cast<const uint8_t*>(image.data()), image.size()}));
  EXPECT_TRUE(memory.seal());
  return std::make_shared<ResidentMemory>(std::move(memory));
}

TEST(ResidentWeights, AreCheckedBeforeAnythingPointsIntoThem) {
  const SyntheticCheckpoint checkpoint({});
  const ShardPlan plan = plan_of(checkpoint.dir(), 1);
  const auto refusal = [&](std::string_view image) {
    const auto weights = attach_weights(forged(image), plan, 0, "o");
    return weights ? std::string() : weights.error().message;
  };
  EXPECT_THAT(refusal("nothing"), HasSubstr("too short"));
  EXPECT_THAT(refusal(tests::safetensors_image("{}", "")), HasSubstr("their layout is nothing"));
  const auto memory = loaded(checkpoint.dir(), plan, 0, "o");
  const std::string whole(reinterpret_cast<const char*>(memory->bytes().data()), memory->bytes().size());
  ASSERT_EQ(refusal(whole), "");
  EXPECT_THAT(refusal(whole.substr(0, whole.size() - 64)), HasSubstr("tensors end at byte"));

  const auto altered = [&](const std::string& from, const std::string& to) {
    std::string image = whole;
    const size_t at = image.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    EXPECT_EQ(from.size(), to.size());
    return image.replace(at, from.size(), to);
  };
  EXPECT_THAT(refusal(altered("\"0.k.run_begin\"", "\"0.k.run_begun\"")), HasSubstr("0.k.run_begin: it, which is not"));
  EXPECT_THAT(refusal(altered("\"final_norm\"", "\"final_nerm\"")), HasSubstr("final_norm: it, which is not there"));

  // The first boundary of layer 0's first run, and a boundary past the weight's inputs.
  const auto header = parse_safetensors(memory->bytes(), "test").value();
  const uint64_t runs = header.data_begin + header.tensors.at("0.q.run_begin").begin;
  for (const auto& [at, value] : {std::pair{0, 32}, std::pair{1, 1 << 20}, std::pair{1, 33}, std::pair{1, -32}}) {
    std::string image = whole;
    std::memcpy(image.data() + runs + static_cast<size_t>(at) * sizeof(int32_t), &value, sizeof(int32_t));
    EXPECT_EQ(refusal(image), "resident weights: 0.q: its runs cannot be right");
  }
}

TEST(ResidentWeights, OfAnOrderThatPointsOutsideTheInputsAreRefused) {
  SyntheticOptions options;
  options.act_order = true;
  const SyntheticCheckpoint checkpoint(options);
  const ShardPlan plan = plan_of(checkpoint.dir(), 1);
  const auto memory = loaded(checkpoint.dir(), plan, 0, "o");
  const auto header = parse_safetensors(memory->bytes(), "test").value();
  for (const int32_t from : {-2, 64}) {
    std::string image(reinterpret_cast<const char*>(memory->bytes().data()), memory->bytes().size());
    std::memcpy(image.data() + header.data_begin + header.tensors.at("0.q.permutation").begin, &from, sizeof from);
    const auto weights = attach_weights(forged(image), plan, 0, "o");
    ASSERT_FALSE(weights);
    EXPECT_EQ(weights.error().message, "resident weights: 0.q: its inputs cannot be right");
  }
}

}  // namespace
}  // namespace lorikeet::model
