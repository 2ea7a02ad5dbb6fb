#include <algorithm>
#include <chrono>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "actors/rank/rank_backend.h"
#include "actors/wire/kv_budget.h"
#include "comm/collective/group.h"
#include "comm/collective/renewable_collective.h"
#include "model/checkpoint/weights.h"
#include "model/config/config.h"

namespace lorikeet::actors {
namespace {

constexpr uint64_t kDefaultKvBytes = 512ULL << 20;

class CpuBackend final : public RankBackend {
 public:
  CpuBackend(const ServerOptions& options, int32_t rank, const RankPlace& place)
      : options_(options), rank_(rank), place_(place) {}

  Result<RankLoaded> load(const std::function<void(int, int)>& progress) override {
    auto config = model::read_model_config(options_.model);
    if (!config) return tl::unexpected(config.error());
    const auto context = context_length(options_, *config);
    if (!context) return tl::unexpected(context.error());
    auto plan = model::ShardPlan::make(*config, options_.tensor_parallel_size);
    if (!plan) return tl::unexpected(plan.error());
    plan_ = *std::move(plan);
    const uint64_t block_bytes = cpu_block_bytes(*plan_, rank_, options_.block_size);
    const uint64_t budget = options_.kv_cache_memory_bytes > 0 ? options_.kv_cache_memory_bytes : kDefaultKvBytes;
    const auto blocks = blocks_within(budget, block_bytes, options_, *context);
    if (!blocks) return tl::unexpected(blocks.error());
    if (options_.load_format == "dummy") {
      weights_ = model::make_dummy_rank_weights(*plan_, rank_, kDummySeed);
    } else {
      auto weights = model::load_rank_weights(options_.model, *plan_, rank_, progress, threads());
      if (!weights) return tl::unexpected(weights.error());
      weights_ = *std::move(weights);
    }
    return RankLoaded{*blocks, block_bytes, weights_->bytes};
  }

  Result<std::shared_ptr<model::RankModel>> join(comm::Rendezvous& store, uint64_t epoch, int32_t num_blocks) override {
    auto group = make_group(store, rendezvous_prefix(epoch));
    if (!group) throw comm::CollectiveError(comm::CollectiveFailure::peer_lost, group.error().message);
    {
      const std::lock_guard lock(mutex_);
      group_ = *group;
      epoch_ = epoch;
      if (epoch < aborted_before_) group_->abort();
    }
    communicator_->renew(*std::move(group));
    if (model_) {
      if (num_blocks > num_blocks_) return fail("the KV cache holds {} blocks, not {}", num_blocks_, num_blocks);
      model_->forget_steps();
      return model_;
    }
    model::RankModelOptions options;
    options.block_size = options_.block_size;
    options.num_blocks = num_blocks;
    options.num_slots = options_.max_loras;
    options.num_threads = threads();
    options.own_cores = threads() * ranks_on_host() <= static_cast<int>(std::thread::hardware_concurrency());
    auto made = model::make_cpu_model(*std::exchange(weights_, std::nullopt), *plan_, options, communicator_);
    if (!made) return tl::unexpected(made.error());
    model_ = *std::move(made);
    num_blocks_ = num_blocks;
    return model_;
  }

  void abort(uint64_t before_epoch) override {
    const std::lock_guard lock(mutex_);
    aborted_before_ = std::max(aborted_before_, before_epoch);
    if (group_ && epoch_ < aborted_before_) group_->abort();
  }

  const model::ShardPlan& shard_plan() const override { return *plan_; }

 private:
  static constexpr uint64_t kDummySeed = 1;

  int threads() const {
    if (options_.threads > 0) return options_.threads;
    const auto cores = static_cast<int>(std::thread::hardware_concurrency());
    return std::max(1, cores / ranks_on_host());
  }

  int ranks_on_host() const { return place_.ranks_on_host > 0 ? place_.ranks_on_host : options_.tensor_parallel_size; }

  Result<std::shared_ptr<comm::Collective>> make_group(comm::Rendezvous& store, const std::string& prefix) const {
    if (options_.tensor_parallel_size == 1) {
      return std::shared_ptr<comm::Collective>(std::move(comm::make_local_group(1)[0]));
    }
    comm::GlooOptions gloo;
    gloo.rank = rank_;
    gloo.size = options_.tensor_parallel_size;
    gloo.prefix = prefix;
    if (!place_.address.empty()) gloo.interface_address = place_.address;
    gloo.operation_timeout = std::chrono::milliseconds(options_.rank_timeout_ms);
    auto group = comm::make_gloo_collective(store, gloo);
    if (!group) return tl::unexpected(group.error());
    return std::shared_ptr<comm::Collective>(*std::move(group));
  }

  const ServerOptions options_;
  const int32_t rank_;
  const RankPlace place_;
  std::optional<model::ShardPlan> plan_;
  std::optional<model::RankWeights> weights_;  // until the model has them
  const std::shared_ptr<comm::RenewableCollective> communicator_ = std::make_shared<comm::RenewableCollective>();
  std::shared_ptr<model::RankModel> model_;
  int32_t num_blocks_ = 0;  // of it
  std::mutex mutex_;        // guards what follows
  std::shared_ptr<comm::Collective> group_;
  uint64_t epoch_ = 0;  // of it
  uint64_t aborted_before_ = 0;
};

}  // namespace

std::shared_ptr<RankBackend> make_cpu_backend(const ServerOptions& options, int32_t rank, const RankPlace& place) {
  return std::make_shared<CpuBackend>(options, rank, place);
}

}  // namespace lorikeet::actors
