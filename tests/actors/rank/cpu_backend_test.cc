#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "actors/rank/rank_backend.h"
#include "comm/collective/collective.h"
#include "kernels/base/resident_memory.h"

namespace lorikeet::actors {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Descriptor copy_of(const Descriptor& descriptor) {
  return Descriptor(fcntl(descriptor.get(), F_DUPFD_CLOEXEC, 3));
}

// Rank 1 of two, of the example model, and the supervisor that holds its memory.
class CpuBackendMemory : public ::testing::Test {
 protected:
  CpuBackendMemory() {
    options_.model = std::string(LORIKEET_SOURCE_DIR) + "/examples/models/tiny-qwen2-gptq-int4";
    options_.tensor_parallel_size = 2;
    options_.threads = 1;
  }

  // Of a process of this rank, which then ends.
  RankLoaded load() {
    RankMemory memory;
    for (const InheritedRegion& region : held_) {
      memory.inherited.push_back({region.what, copy_of(region.memory)});
    }
    memory.hold = [this](const RegionDescription& what, const Descriptor& descriptor) {
      held_.clear();
      held_.push_back({what, copy_of(descriptor)});
    };
    memory.drop = [this] {
      held_.clear();
      ++dropped_;
    };
    memory.say = [this](const std::string& sentence) { said_.push_back(sentence); };
    layers_ = 0;
    const auto backend = make_rank_backend(options_, 1, std::move(memory)).value();
    const auto loaded = backend->load([this](int done, int) { layers_ = done; });
    EXPECT_TRUE(loaded) << loaded.error().message;
    return loaded.value_or(RankLoaded{});
  }

  ServerOptions options_;
  std::vector<InheritedRegion> held_;
  int dropped_ = 0, layers_ = 0;
  std::vector<std::string> said_;
};

TEST_F(CpuBackendMemory, LetsASuccessorReadNothing) {
  const RankLoaded first = load();
  EXPECT_GT(first.weight_bytes_read, 0U);
  EXPECT_GT(layers_, 0);
  ASSERT_EQ(held_.size(), 1U);
  EXPECT_EQ(held_[0].what.name, "weights");
  EXPECT_GE(held_[0].what.bytes, first.weight_bytes);
  for (int i = 0; i < 2; ++i) {
    const RankLoaded next = load();
    EXPECT_EQ(next.weight_bytes_read, 0U);
    EXPECT_EQ(next.weight_bytes, first.weight_bytes);
    EXPECT_EQ(next.num_blocks, first.num_blocks);
    EXPECT_EQ(layers_, 0);
  }
  EXPECT_EQ(held_.size(), 1U);
  EXPECT_EQ(dropped_, 0);
  EXPECT_THAT(said_.back(), HasSubstr("none was read from disk"));
}

TEST_F(CpuBackendMemory, DoesTheSameForRandomWeights) {
  options_.load_format = "dummy";
  const RankLoaded first = load();
  EXPECT_EQ(load().weight_bytes, first.weight_bytes);
  EXPECT_THAT(said_, ElementsAre(HasSubstr("none was read from disk")));
}

TEST_F(CpuBackendMemory, LoadsAnewWhatDoesNotFit) {
  const RankLoaded first = load();
  auto other = kernels::ResidentMemory::make("other").value();
  ASSERT_TRUE(other.write(0, std::vector<uint8_t>(4'096, 1)));
  const Descriptor unsealed = copy_of(other.descriptor());
  held_[0].memory = copy_of(unsealed);
  EXPECT_EQ(load().weight_bytes_read, first.weight_bytes_read);
  EXPECT_EQ(dropped_, 1);
  EXPECT_THAT(said_.back(), HasSubstr("loads its weights anew: the descriptor is not one of sealed memory"));

  ASSERT_TRUE(other.seal());
  held_[0].memory = copy_of(other.descriptor());
  EXPECT_EQ(load().weight_bytes_read, first.weight_bytes_read);
  EXPECT_EQ(dropped_, 2);

  options_.tensor_parallel_size = 4;  // those of rank 1 of two
  EXPECT_GT(load().weight_bytes_read, 0U);
  EXPECT_EQ(dropped_, 3);
  EXPECT_THAT(said_.back(), HasSubstr("their ranks is 2, not 4"));
  EXPECT_EQ(load().weight_bytes_read, 0U) << "what was loaded anew is there for the next one";
}

// The only rank of the example model, as one process after the other has its memory.
class CpuBackendKvCache : public ::testing::Test {
 protected:
  static constexpr int32_t kBlocks = 6;

  CpuBackendKvCache() {
    options_.model = std::string(LORIKEET_SOURCE_DIR) + "/examples/models/tiny-qwen2-gptq-int4";
    options_.threads = 1;
  }

  struct Process {
    std::shared_ptr<RankBackend> backend;
    RankLoaded loaded;
    std::shared_ptr<model::RankModel> model;
  };

  Process start() {
    RankMemory memory;
    for (const auto& [name, region] : held_) memory.inherited.push_back({region.what, copy_of(region.memory)});
    memory.hold = [this](const RegionDescription& what, const Descriptor& descriptor) {
      held_.insert_or_assign(what.name, InheritedRegion{what, copy_of(descriptor)});
    };
    memory.drop = [this] { held_.clear(); };
    memory.drop_one = [this](const std::string& name) { held_.erase(name); };
    memory.say = [this](const std::string& sentence) { said_.push_back(sentence); };
    Process process{make_rank_backend(options_, 0, std::move(memory)).value(), {}, nullptr};
    process.loaded = process.backend->load([](int, int) {}).value();
    return process;
  }

  static void join(Process& process, uint64_t epoch, int32_t num_blocks = kBlocks) {
    NoStore store;
    process.model = process.backend->join(store, epoch, num_blocks).value();
  }

  // Computes tokens from `start` on, and draws the next one.
  static int32_t step(Process& process, const std::vector<int32_t>& tokens, int32_t start) {
    const std::vector<int32_t> blocks = {3, 1, 2};
    model::BatchRow row;
    row.token_ids = tokens;
    row.prompt_size = 20;
    row.start = start;
    row.block_table = blocks;
    row.sample = true;
    row.sampling.temperature = 0;
    process.model->begin_step({&row, 1});
    return process.model->finish_step().at(0).token_id;
  }

  struct NoStore final : comm::Rendezvous {
    void set(const std::string&, const std::vector<uint8_t>&) override {}
    std::vector<uint8_t> get(const std::string&, std::chrono::milliseconds) override { return {}; }
  };

  static std::vector<int32_t> prompt() {
    std::vector<int32_t> tokens;
    for (int32_t i = 0; i < 20; ++i) tokens.push_back(7 * i + 3);
    return tokens;
  }

  ServerOptions options_;
  std::map<std::string, InheritedRegion> held_;
  std::vector<std::string> said_;
};

TEST_F(CpuBackendKvCache, IsThereForTheNextProcess) {
  std::vector<int32_t> tokens;
  {
    Process first = start();
    EXPECT_EQ(first.loaded.kv_epoch, 0U);
    EXPECT_GT(first.loaded.num_blocks, kBlocks);
    join(first, 5);
    tokens.push_back(step(first, prompt(), 0));
    tokens.push_back(step(first, {tokens[0]}, 20));
    tokens.push_back(step(first, {tokens[1]}, 21));
    first.backend->update(first.loaded);
    EXPECT_EQ(first.loaded.kv_epoch, 5U);
    EXPECT_EQ(first.loaded.num_blocks, kBlocks) << "it holds no more than that";
  }
  for (uint64_t epoch = 6; epoch < 8; ++epoch) {
    Process next = start();
    EXPECT_EQ(next.loaded.kv_epoch, 5U);
    EXPECT_EQ(next.loaded.num_blocks, kBlocks);
    join(next, epoch);
    EXPECT_EQ(step(next, {tokens[0]}, 20), tokens[1]);
    EXPECT_EQ(step(next, {tokens[1]}, 21), tokens[2]);
  }
}

TEST_F(CpuBackendKvCache, StaysWithAProcessThatJoinsAnotherGroup) {
  Process process = start();
  join(process, 1);
  const int32_t first = step(process, prompt(), 0), second = step(process, {first}, 20);
  join(process, 2, kBlocks - 1);
  EXPECT_EQ(step(process, {first}, 20), second);
  process.backend->update(process.loaded);
  EXPECT_EQ(process.loaded.kv_epoch, 1U);
}

TEST_F(CpuBackendKvCache, IsMadeAnewWhereWhatIsLeftDoesNotFit) {
  {
    Process first = start();
    join(first, 1);
  }
  ASSERT_EQ(held_.count("kv"), 1U);
  options_.block_size *= 2;
  EXPECT_EQ(start().loaded.kv_epoch, 0U);
  EXPECT_THAT(said_, Contains(HasSubstr("its KV cache is made anew: it is lorikeet-cpu-kv-1 of")));
  EXPECT_EQ(held_.count("kv") + held_.count("kv.memory"), 0U) << "nobody keeps what nobody wants";

  {
    Process next = start();
    join(next, 2);
  }
  held_.erase("kv.memory");
  EXPECT_EQ(start().loaded.kv_epoch, 0U);
  EXPECT_THAT(said_, Contains(HasSubstr("was not left")));

  {
    Process next = start();
    join(next, 3);
  }
  held_.at("weights").memory = copy_of(held_.at("kv").memory);
  EXPECT_EQ(start().loaded.kv_epoch, 0U) << "it was computed with other weights, for all that is known";

  {
    Process next = start();
    join(next, 4);
  }
  held_.erase("weights");
  EXPECT_EQ(start().loaded.kv_epoch, 0U);
  EXPECT_EQ(held_.count("kv") + held_.count("kv.memory"), 0U);
}

// A store for ranks that are threads.
class SharedStore final : public comm::Rendezvous {
 public:
  void set(const std::string& key, const std::vector<uint8_t>& value) override {
    const std::lock_guard lock(mutex_);
    values_[key] = value;
    changed_.notify_all();
  }
  std::vector<uint8_t> get(const std::string& key, std::chrono::milliseconds timeout) override {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, timeout, [&] { return values_.count(key) > 0; })) {
      throw comm::CollectiveError(comm::CollectiveFailure::timeout, key);
    }
    return values_[key];
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::vector<uint8_t>> values_;
};

std::vector<int32_t> counts(comm::Rendezvous& store, const std::string& prefix, const std::vector<RankPlace>& places) {
  const auto ranks = static_cast<int32_t>(places.size());
  std::vector<int32_t> found(places.size());
  std::vector<std::thread> threads;
  for (int32_t rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      const auto i = static_cast<size_t>(rank);
      found[i] = ranks_on_host(store, prefix, rank, ranks, places[i]);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return found;
}

TEST(RanksOnHost, AreCountedAlikeWhateverEachWasToldWhenItWasStarted) {
  SharedStore store;
  std::vector<RankPlace> places(4);
  for (size_t i = 0; i < places.size(); ++i) {
    places[i].host = 2;
    places[i].ranks_on_host = static_cast<int32_t>(i) + 1;  // as they had moved by then
  }
  EXPECT_THAT(counts(store, "epoch5/", places), ElementsAre(4, 4, 4, 4));
  places[2].host = 3;
  EXPECT_THAT(counts(store, "epoch6/", places), ElementsAre(3, 3, 1, 3)) << "those that stay are told, too";
}

TEST(RanksOnHost, AreAllWhereThereIsOneHost) {
  SharedStore store;
  EXPECT_EQ(ranks_on_host(store, "epoch1/", 1, 4, {}), 4) << "and nobody is waited for";
}

}  // namespace
}  // namespace lorikeet::actors
