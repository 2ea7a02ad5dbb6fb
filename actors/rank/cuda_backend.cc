#include <fmt/format.h>
#include <stdlib.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "actors/rank/rank_backend.h"
#include "actors/rank/resident_kv.h"
#include "actors/wire/device_types.h"
#include "actors/wire/kv_budget.h"
#include "comm/collective/peer_collective.h"
#include "comm/collective/peer_exchange.h"
#include "kernels/base/device.h"
#include "kernels/peer/peer_memory.h"
#include "model/checkpoint/file_reader.h"
#include "model/checkpoint/resident_weights.h"
#include "model/checkpoint/weights.h"
#include "model/config/config.h"
#include "model/forward/cuda_model.h"
#include "model/forward/resident_device_adapters.h"
#include "model/forward/resident_device_weights.h"
#include "model/forward/slot_records.h"

namespace lorikeet::actors {
namespace {

constexpr std::chrono::seconds kAgreementPatience{10};  // with the other ranks; three times as long at the most

kernels::KvDtype kv_dtype(const ServerOptions& options, kernels::Dtype activations) {
  if (options.kv_cache_dtype == "fp8") return kernels::KvDtype::f8_e4m3;
  if (options.kv_cache_dtype == "fp16") return kernels::KvDtype::f16;
  if (options.kv_cache_dtype == "bf16") return kernels::KvDtype::bf16;
  return activations == kernels::Dtype::bf16 ? kernels::KvDtype::bf16 : kernels::KvDtype::f16;
}

constexpr int kBusyTries = 20;
constexpr std::chrono::milliseconds kBusyPause{100};

class CudaBackend final : public RankBackend {
 public:
  CudaBackend(const ServerOptions& options, int32_t rank, RankMemory memory, const RankPlace& place)
      : options_(options), rank_(rank), memory_(std::move(memory)), place_(place) {}

  Result<RankLoaded> load(const std::function<void(int, int)>& progress) override {
    auto config = model::read_model_config(options_.model);
    if (!config) return tl::unexpected(config.error());
    const auto context = context_length(options_, *config);
    if (!context) return tl::unexpected(context.error());
    auto plan = model::ShardPlan::make(*config, options_.tensor_parallel_size);
    if (!plan) return tl::unexpected(plan.error());
    plan_ = *std::move(plan);
    if (auto chosen = choose_device(); !chosen) return tl::unexpected(chosen.error());

    model::CudaModelOptions options;
    options.block_size = options_.block_size;
    options.max_num_seqs = options_.max_num_seqs;
    options.max_num_batched_tokens = options_.max_num_batched_tokens;
    options.max_model_len = *context;
    options.dtype = activation_dtype(options_, *config);
    options.kv_dtype = kv_dtype(options_, options.dtype);
    options.num_slots = options_.max_loras;
    options.max_lora_rank = options_.max_lora_rank;
    // What the head counts, and the slack.
    options.lora_bytes = options_.lora_memory_bytes + options_.lora_memory_bytes / model::kLoraSlackShare;
    options.load_threads = std::max(1, options_.threads);
    options.progress = progress;
    options.time_steps = options_.time_steps;
    options.shares_device = ranks_per_device_ > 1;
    const auto origin = model::weights_origin(options_.model, options_.load_format);
    if (!origin) return tl::unexpected(origin.error());
    const auto device = kernels::device_bus_address();
    if (!device) return tl::unexpected(device.error());
    kv_is_ =
        fmt::format("lorikeet-cuda-kv-1 of {}, rank {} of {} at {}, {} layers, {}, blocks of {}", *origin, rank_,
                    plan_->size(), *device, plan_->config().num_layers, name_of(options.kv_dtype), options.block_size);
    for (const InheritedRegion& region : memory_.inherited) {
      if (region.what.kind == RegionKind::device) bytes_left_ += region.what.bytes;
    }
    left_kv_ = take_kv(memory_, kv_is_, RegionKind::device);
    const uint64_t read_before = model::bytes_read_from_files();
    auto weights = take_over_or_load(options, *origin);
    if (!weights) return tl::unexpected(weights.error());
    const uint64_t weight_bytes_read = model::bytes_read_from_files() - read_before;
    if (options.num_slots > 0) {
      options.adapter_memory = take_over_or_make_adapters(options, fmt::format("{} at {}", *origin, *device));
    }
    auto made = model::make_cuda_model(*std::move(weights), *plan_, rank_, options);
    if (!made) return tl::unexpected(made.error());
    model_ = *std::move(made);
    if (left_kv_) take_over(*std::exchange(left_kv_, std::nullopt));
    RankLoaded loaded{0, model_->kv_block_bytes(), model_->weight_bytes(), weight_bytes_read};
    update(loaded);
    if (kv_) return loaded;
    const auto budget = kv_bytes();
    if (!budget) return tl::unexpected(budget.error());
    const auto blocks = blocks_within(*budget, model_->kv_block_bytes(), options_, *context);
    if (!blocks) return tl::unexpected(blocks.error());
    loaded.num_blocks = *blocks;
    return loaded;
  }

  void update(RankLoaded& loaded) const override {
    if (!kv_) return;
    loaded.num_blocks = kv_->num_blocks;
    loaded.kv_epoch = kv_->epoch;
  }

  Result<std::shared_ptr<model::RankModel>> join(comm::Rendezvous& store, uint64_t epoch, int32_t num_blocks) override {
    auto group = make_group(store, epoch);
    if (!group) throw comm::CollectiveError(comm::CollectiveFailure::peer_lost, group.error().message);
    if (kv_ && num_blocks > kv_->num_blocks) {
      return fail("the KV cache holds {} blocks, not {}", kv_->num_blocks, num_blocks);
    }
    // Each capture begins with a pass in which the ranks sum: all of them make the same ones, or they wait for each other.
    bool capture_all = !started_ && !kv_memory_.holds_kv;
    if (options_.tensor_parallel_size > 1) {
      capture_all =
          comm::all_agree(store, {rank_, options_.tensor_parallel_size, rendezvous_prefix(epoch), kAgreementPatience},
                          "captures-all", capture_all);
    }
    Result<void> started;
    if (started_) {
      started = model_->reset(*std::move(group), capture_all);
    } else {
      if (!kv_) make_kv(num_blocks, epoch);
      started = model_->start(kv_->num_blocks, *std::move(group), kv_memory_, capture_all);
    }
    if (!started) return tl::unexpected(started.error());
    started_ = true;
    return std::shared_ptr<model::RankModel>(model_);
  }

  void abort(uint64_t before_epoch) override {
    const std::lock_guard lock(mutex_);
    aborted_before_ = std::max(aborted_before_, before_epoch);
    if (group_ && epoch_ < aborted_before_) group_->abort();
  }

  std::vector<std::string> adapters_left() const override { return model_->adapters_left(); }
  const model::ShardPlan& shard_plan() const override { return *plan_; }

 private:
  // Ranks beyond the devices share them.
  Result<void> choose_device() {
    const auto devices = kernels::device_count();
    if (!devices) return tl::unexpected(devices.error());
    if (*devices == 0) return fail("this host has no CUDA device");
    if (place_.device >= *devices)
      return fail("this host has {} CUDA devices and no device {}", *devices, place_.device);
    if (place_.device >= 0) return use_device(place_.device);
    ranks_per_device_ = (options_.tensor_parallel_size + *devices - 1) / *devices;
    if (ranks_per_device_ > 1) {
      // NCCL refuses two ranks of one host on one device, so each says that it is a host of its own.
      setenv("NCCL_HOSTID", fmt::format("lorikeet-rank-{}", rank_).c_str(), 0);
      setenv("NCCL_SOCKET_IFNAME", "lo", 0);
    }
    return use_device(rank_ % *devices);
  }

  // A process that takes the place of one that has just died may find the device busy for a moment.
  static Result<void> use_device(int device) {
    Result<void> used = kernels::use_device(device);
    for (int tries = 0; !used && tries < kBusyTries; ++tries) {
      std::this_thread::sleep_for(kBusyPause);
      used = kernels::use_device(device);
    }
    return used;
  }

  // Null on a single rank.
  Result<std::shared_ptr<comm::DeviceCollective>> make_group(comm::Rendezvous& store, uint64_t epoch) {
    if (options_.tensor_parallel_size == 1) return std::shared_ptr<comm::DeviceCollective>();
    comm::NcclOptions nccl;
    nccl.rank = rank_;
    nccl.size = options_.tensor_parallel_size;
    nccl.prefix = rendezvous_prefix(epoch);
    nccl.operation_timeout = std::chrono::milliseconds(options_.rank_timeout_ms);
    // NCCL takes a second for a new communicator, during which streams would wait after a loss: then it connects later. A
    // server that starts connects at once, so that it says at once what does not work.
    nccl.connect_behind = started_ || kv_memory_.holds_kv;
    nccl.retired = retired_;
    comm::PeerOptions peers;
    peers.shares_device = ranks_per_device_ > 1;
    // Ranks reach each other's memory on one host only.
    peers.enabled = ranks_on_host(store, rendezvous_prefix(epoch), rank_, nccl.size, place_) == nccl.size;
    auto made = comm::make_device_collective(store, nccl, peers);
    if (!made) return tl::unexpected(made.error());
    const std::shared_ptr<comm::DeviceCollective> group = *std::move(made);
    const std::lock_guard lock(mutex_);
    group_ = group;
    epoch_ = epoch;
    if (epoch < aborted_before_) group_->abort();
    return group;
  }

  Result<uint64_t> kv_bytes() const {
    if (options_.kv_cache_memory_bytes > 0) return options_.kv_cache_memory_bytes;
    double utilization = 0;
    const std::string& text = options_.gpu_memory_utilization;
    std::from_chars(text.data(), text.data() + text.size(), utilization);
    return model::kv_cache_budget(kernels::device_memory(), model_->device_bytes(), utilization / ranks_per_device_);
  }

  // Regions that the supervisor holds: what the weights are, and where the pieces of device memory lie.
  static constexpr const char* kContents = "weights";
  static constexpr const char* kAdapterRecords = "adapters";  // what the slots hold, and where
  static constexpr const char* kAdapters = "adapters.memory";
  static std::string name_of_piece(size_t i) { return fmt::format("weights.{:02}", i); }

  Result<model::DeviceWeights> take_over_or_load(const model::CudaModelOptions& options, const std::string& origin) {
    if (auto left = memory_.take(kContents)) {
      auto weights = take_over(std::move(left->memory), options, origin);
      if (weights) {
        memory_.say(fmt::format("its weights ({} bytes) were there, and none was read from disk", weights->bytes()));
        return weights;
      }
      memory_.say("loads its weights anew: " + weights.error().message);
    }
    if (bytes_left_ > 0) drop_all();
    std::unique_ptr<model::WeightSource> source;
    if (options_.load_format != "dummy") {
      auto opened = model::open_weights(options_.model, *plan_, rank_);
      if (!opened) return tl::unexpected(opened.error());
      source = *std::move(opened);
    }
    auto weights = model::put_weights_on_device(source.get(), *plan_, rank_, options);
    if (!weights) return weights;
    auto resident = model::make_resident(*weights, *plan_, rank_, options.dtype, origin);
    if (resident) {
      hold(*resident);
    } else {
      memory_.say("its weights end with its process: " + resident.error().message);
    }
    return weights;
  }

  Result<model::DeviceWeights> take_over(Descriptor described, const model::CudaModelOptions& options,
                                         const std::string& origin) {
    const auto contents = kernels::ResidentMemory::attach(std::move(described));
    if (!contents) return tl::unexpected(contents.error());
    std::vector<Descriptor> pieces;
    while (auto piece = memory_.take(name_of_piece(pieces.size()))) pieces.push_back(std::move(piece->memory));
    return model::attach_device_weights(*contents, pieces, *plan_, rank_, options.dtype, origin);
  }

  // What a predecessor left cannot be used; its memory on the device is needed.
  void drop_all() {
    memory_.inherited.clear();
    left_kv_.reset();
    const uint64_t wanted = kernels::device_memory().free_bytes + bytes_left_ / 10 * 9;
    memory_.drop();
    wait_for_free_memory(wanted);
  }

  // The supervisor lets go of what it holds when it hears of it.
  static void wait_for_free_memory(uint64_t wanted) {
    for (int tries = 0; kernels::device_memory().free_bytes < wanted && tries < kBusyTries; ++tries) {
      std::this_thread::sleep_for(kBusyPause);
    }
  }

  void take_over(LeftKv left) {
    if (left.is.bytes != model_->kv_block_bytes() * static_cast<uint64_t>(left.is.num_blocks)) {
      drop_kv(memory_);
      return memory_.say("its KV cache is made anew: it has another size");
    }
    auto attached = kernels::PeerMemory::attach(left.memory, left.is.bytes);
    if (!attached) {
      drop_kv(memory_);
      return memory_.say("its KV cache is made anew: " + attached.error().message);
    }
    kv_ = std::move(left.is);
    kv_memory_ = {std::make_shared<kernels::PeerMemory>(*std::move(attached)), true};
  }

  void make_kv(int32_t num_blocks, uint64_t epoch) {
    kv_ = ResidentKv{kv_is_, RegionKind::device, model_->kv_block_bytes() * static_cast<uint64_t>(num_blocks),
                     num_blocks, epoch};
    auto made = kernels::PeerMemory::make(kv_->bytes);
    const auto descriptor = made ? made->share() : Result<Descriptor>(tl::unexpected(made.error()));
    if (!descriptor) return memory_.say("its KV cache ends with its process: " + descriptor.error().message);
    hold_kv(memory_, *kv_, *descriptor);
    kv_memory_ = {std::make_shared<kernels::PeerMemory>(*std::move(made)), false};
  }

  // Null where adapters end with the process.
  model::AdapterMemory take_over_or_make_adapters(const model::CudaModelOptions& options, const std::string& what) {
    auto records = memory_.take(kAdapterRecords);
    auto memory = memory_.take(kAdapters);
    if (records && memory) {
      auto left =
          model::attach_adapter_memory(std::move(records->memory), memory->memory, *plan_, rank_, options, what);
      if (left) return *std::move(left);
      memory_.say("its adapter slots are made anew: " + left.error().message);
    }
    if (records || memory) {
      const uint64_t wanted = kernels::device_memory().free_bytes + (memory ? memory->what.bytes : 0) / 10 * 9;
      memory_.drop_one(kAdapterRecords);
      memory_.drop_one(kAdapters);
      memory.reset();
      wait_for_free_memory(wanted);
    }
    auto made = model::make_adapter_memory(*plan_, rank_, options, what);
    const auto descriptor = made ? made->memory->share() : Result<Descriptor>(tl::unexpected(made.error()));
    if (!descriptor) {
      memory_.say("its adapters end with its process: " + descriptor.error().message);
      return {};
    }
    memory_.hold({kAdapters, RegionKind::device, made->memory->bytes()}, *descriptor);
    memory_.hold({kAdapterRecords, RegionKind::shared, made->records->bytes()}, made->records->descriptor());
    return *std::move(made);
  }

  // The pieces first: their description must never be held without them.
  void hold(const model::ResidentDeviceWeights& resident) {
    for (size_t i = 0; i < resident.regions.size(); ++i) {
      memory_.hold({name_of_piece(i), RegionKind::device, resident.regions[i].bytes}, resident.regions[i].memory);
    }
    memory_.hold({kContents, RegionKind::sealed, resident.contents.bytes().size()}, resident.contents.descriptor());
  }

  const ServerOptions options_;
  const int32_t rank_;
  RankMemory memory_;
  const RankPlace place_;
  int32_t ranks_per_device_ = 1;
  std::optional<model::ShardPlan> plan_;
  std::string kv_is_;                        // ResidentKv::what
  uint64_t bytes_left_ = 0;                  // by a predecessor, on the device
  std::optional<LeftKv> left_kv_;            // by a predecessor, until the model is there
  std::shared_ptr<model::CudaModel> model_;  // since load
  bool started_ = false;                     // the model, by a first join
  std::optional<ResidentKv> kv_;  // what the model's KV cache is, or will be; nullopt: it is still to be made
  model::KvMemory kv_memory_;     // null: the model takes its own
  const std::shared_ptr<comm::RetiredCommunicators> retired_ = std::make_shared<comm::RetiredCommunicators>();
  std::mutex mutex_;  // guards what follows
  std::shared_ptr<comm::DeviceCollective> group_;
  uint64_t epoch_ = 0;  // of it
  uint64_t aborted_before_ = 0;
};

}  // namespace

std::shared_ptr<RankBackend> make_cuda_backend(const ServerOptions& options, int32_t rank, RankMemory memory,
                                               const RankPlace& place) {
  return std::make_shared<CudaBackend>(options, rank, std::move(memory), place);
}

}  // namespace lorikeet::actors
