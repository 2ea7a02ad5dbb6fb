#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "actors/rank/rank_backend.h"
#include "actors/rank/resident_kv.h"
#include "actors/wire/kv_budget.h"
#include "comm/collective/group.h"
#include "comm/collective/renewable_collective.h"
#include "model/checkpoint/file_reader.h"
#include "model/checkpoint/resident_weights.h"
#include "model/checkpoint/weights.h"
#include "model/config/config.h"

namespace lorikeet::actors {
namespace {

constexpr uint64_t kDefaultKvBytes = 512ULL << 20;

class CpuBackend final : public RankBackend {
 public:
  CpuBackend(const ServerOptions& options, int32_t rank, RankMemory memory, const RankPlace& place)
      : options_(options), rank_(rank), memory_(std::move(memory)), place_(place) {}

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
    const auto origin = model::weights_origin(options_.model, options_.load_format);
    if (!origin) return tl::unexpected(origin.error());
    origin_ = *origin;
    take_over_kv();
    const uint64_t read_before = model::bytes_read_from_files();
    auto weights = take_over_or_load(progress);
    if (!weights) return tl::unexpected(weights.error());
    weights_ = *std::move(weights);
    RankLoaded loaded{*blocks, block_bytes, weights_->bytes, model::bytes_read_from_files() - read_before};
    update(loaded);
    return loaded;
  }

  void update(RankLoaded& loaded) const override {
    if (!kv_) return;
    loaded.num_blocks = kv_->num_blocks;
    loaded.kv_epoch = kv_->epoch;
  }

  Result<std::shared_ptr<model::RankModel>> join(comm::Rendezvous& store, uint64_t epoch, int32_t num_blocks) override {
    const int beside = ranks_on_host(store, rendezvous_prefix(epoch), rank_, options_.tensor_parallel_size, place_);
    const bool own_cores = threads(beside) * beside <= static_cast<int>(std::thread::hardware_concurrency());
    auto group = make_group(store, rendezvous_prefix(epoch));
    if (!group) throw comm::CollectiveError(comm::CollectiveFailure::peer_lost, group.error().message);
    {
      const std::lock_guard lock(mutex_);
      group_ = *group;
      epoch_ = epoch;
      if (epoch < aborted_before_) group_->abort();
    }
    communicator_->renew(*std::move(group));
    if (kv_ && num_blocks > kv_->num_blocks) {
      return fail("the KV cache holds {} blocks, not {}", kv_->num_blocks, num_blocks);
    }
    if (model_) {
      model_->forget_steps();
      model_->use_threads(threads(beside), own_cores);
      return model_;
    }
    model::RankModelOptions options;
    options.block_size = options_.block_size;
    options.num_blocks = kv_ ? kv_->num_blocks : num_blocks;
    options.num_slots = options_.max_loras;
    options.num_threads = threads(beside);
    options.int8_activations = options_.cpu_activations == "int8";
    options.own_cores = own_cores;
    if (!kv_) make_kv(options, epoch);
    auto made = model::make_cpu_model(*std::exchange(weights_, std::nullopt), *plan_, options, communicator_,
                                      std::exchange(kv_memory_, nullptr));
    if (!made) return tl::unexpected(made.error());
    model_ = *std::move(made);
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
  static constexpr const char* kWeights = "weights";  // the region

  std::string kv_is() const {
    const auto& config = plan_->config();
    return fmt::format("lorikeet-cpu-kv-1 of {}, rank {} of {}, {} layers of {} heads of {}, blocks of {}", origin_,
                       rank_, plan_->size(), config.num_layers, plan_->shard(rank_).kv_heads.size(), config.head_dim,
                       options_.block_size);
  }

  void take_over_kv() {
    auto left = take_kv(memory_, kv_is(), RegionKind::shared);
    if (!left) return;
    model::RankModelOptions options;
    options.block_size = options_.block_size;
    options.num_blocks = left->is.num_blocks;
    auto attached = kernels::SharedMemory::attach(std::move(left->memory), model::cpu_kv_bytes(*plan_, rank_, options));
    if (!attached) {
      drop_kv(memory_);
      return memory_.say("its KV cache is made anew: " + attached.error().message);
    }
    kv_ = std::move(left->is);
    kv_memory_ = std::make_shared<const kernels::SharedMemory>(*std::move(attached));
  }

  void make_kv(const model::RankModelOptions& options, uint64_t epoch) {
    kv_ =
        ResidentKv{kv_is(), RegionKind::shared, model::cpu_kv_bytes(*plan_, rank_, options), options.num_blocks, epoch};
    auto made = kernels::SharedMemory::make(fmt::format("lorikeet-kv-{}", rank_), kv_->bytes);
    if (!made) return memory_.say("its KV cache ends with its process: " + made.error().message);
    hold_kv(memory_, *kv_, made->descriptor());
    kv_memory_ = std::make_shared<const kernels::SharedMemory>(*std::move(made));
  }

  Result<model::RankWeights> take_over_or_load(const std::function<void(int, int)>& progress) {
    if (auto left = memory_.take(kWeights)) {
      auto weights = take_over(std::move(left->memory));
      if (weights) {
        memory_.say(fmt::format("its weights ({} bytes) were there, and none was read from disk", weights->bytes));
        return weights;
      }
      memory_.drop();
      memory_.say("loads its weights anew: " + weights.error().message);
    } else if (kv_) {
      drop_kv(memory_);
    }
    kv_.reset();  // it was computed with weights that are not there any more
    kv_memory_.reset();
    auto resident = model::ResidentWeights::make(*plan_, rank_, origin_);
    if (!resident) {
      memory_.say("its weights end with its process: " + resident.error().message);
      if (is_dummy()) return model::make_dummy_rank_weights(*plan_, rank_, kDummySeed);
      return model::load_rank_weights(options_.model, *plan_, rank_, progress, threads_to_load());
    }
    if (auto ok = load_into(**resident, progress); !ok) return tl::unexpected(ok.error());
    auto sealed = (*resident)->seal();
    if (!sealed) return tl::unexpected(sealed.error());
    memory_.hold({kWeights, RegionKind::sealed, sealed->bytes().size()}, sealed->descriptor());
    return model::attach_weights(std::make_shared<kernels::ResidentMemory>(*std::move(sealed)), *plan_, rank_, origin_);
  }

  Result<model::RankWeights> take_over(Descriptor descriptor) const {
    auto memory = kernels::ResidentMemory::attach(std::move(descriptor));
    if (!memory) return tl::unexpected(memory.error());
    return model::attach_weights(std::make_shared<kernels::ResidentMemory>(*std::move(memory)), *plan_, rank_, origin_);
  }

  Result<void> load_into(model::WeightSink& sink, const std::function<void(int, int)>& progress) const {
    if (!is_dummy()) {
      return model::load_rank_weights_into(sink, options_.model, *plan_, rank_, progress, threads_to_load());
    }
    model::RankWeights weights = model::make_dummy_rank_weights(*plan_, rank_, kDummySeed);
    std::vector<model::LayerWeights> layers = std::exchange(weights.layers, {});
    auto ok = sink.put_outer(std::move(weights));
    for (size_t i = 0; ok && i < layers.size(); ++i) {
      ok = sink.put_layer(static_cast<int32_t>(i), std::exchange(layers[i], {}));
    }
    return ok;
  }

  bool is_dummy() const { return options_.load_format == "dummy"; }

  // Of a rank with so many on its host, itself included.
  int threads(int ranks) const {
    if (options_.threads > 0) return options_.threads;
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / ranks);
  }

  int threads_to_load() const {
    return threads(place_.ranks_on_host > 0 ? place_.ranks_on_host : options_.tensor_parallel_size);
  }

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
  RankMemory memory_;
  const RankPlace place_;
  std::optional<model::ShardPlan> plan_;
  std::string origin_;                         // of weights and KV cache
  std::optional<model::RankWeights> weights_;  // until the model has them
  const std::shared_ptr<comm::RenewableCollective> communicator_ = std::make_shared<comm::RenewableCollective>();
  std::shared_ptr<model::RankModel> model_;
  std::optional<ResidentKv> kv_;  // what the model's KV cache is, or will be; nullopt: it is still to be made
  std::shared_ptr<const kernels::SharedMemory> kv_memory_;  // until the model has it; null: it takes its own
  std::mutex mutex_;                                        // guards what follows
  std::shared_ptr<comm::Collective> group_;
  uint64_t epoch_ = 0;  // of it
  uint64_t aborted_before_ = 0;
};

}  // namespace

std::shared_ptr<RankBackend> make_cpu_backend(const ServerOptions& options, int32_t rank, RankMemory memory,
                                              const RankPlace& place) {
  return std::make_shared<CpuBackend>(options, rank, std::move(memory), place);
}

}  // namespace lorikeet::actors
