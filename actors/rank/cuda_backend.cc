#include <stdlib.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <mutex>
#include <optional>
#include <utility>

#include "actors/rank/rank_backend.h"
#include "actors/wire/kv_budget.h"
#include "comm/collective/peer_collective.h"
#include "kernels/base/device.h"
#include "model/checkpoint/file_reader.h"
#include "model/checkpoint/weights.h"
#include "model/config/config.h"
#include "model/forward/cuda_model.h"

namespace lorikeet::actors {
namespace {

kernels::Dtype activation_dtype(const ServerOptions& options, const model::ModelConfig& config) {
  const std::string& wanted = options.dtype == "auto" ? config.torch_dtype : options.dtype;
  return wanted == "bfloat16" ? kernels::Dtype::bf16 : kernels::Dtype::f16;
}

kernels::KvDtype kv_dtype(const ServerOptions& options, kernels::Dtype activations) {
  if (options.kv_cache_dtype == "fp8") return kernels::KvDtype::f8_e4m3;
  if (options.kv_cache_dtype == "fp16") return kernels::KvDtype::f16;
  if (options.kv_cache_dtype == "bf16") return kernels::KvDtype::bf16;
  return activations == kernels::Dtype::bf16 ? kernels::KvDtype::bf16 : kernels::KvDtype::f16;
}

class CudaBackend final : public RankBackend {
 public:
  CudaBackend(const ServerOptions& options, int32_t rank, const RankPlace& place)
      : options_(options), rank_(rank), place_(place) {}

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
    options.load_threads = std::max(1, options_.threads);
    options.progress = progress;
    options.time_steps = options_.time_steps;
    options.shares_device = ranks_per_device_ > 1;
    const uint64_t read_before = model::bytes_read_from_files();
    std::unique_ptr<model::WeightSource> source;
    if (options_.load_format != "dummy") {
      auto opened = model::open_weights(options_.model, *plan_, rank_);
      if (!opened) return tl::unexpected(opened.error());
      source = *std::move(opened);
    }
    auto loaded = model::load_cuda_model(source.get(), *plan_, rank_, options);
    if (!loaded) return tl::unexpected(loaded.error());
    model_ = *std::move(loaded);
    const auto budget = kv_bytes();
    if (!budget) return tl::unexpected(budget.error());
    const auto blocks = blocks_within(*budget, model_->kv_block_bytes(), options_, *context);
    if (!blocks) return tl::unexpected(blocks.error());
    return RankLoaded{*blocks, model_->kv_block_bytes(), model_->weight_bytes(),
                      model::bytes_read_from_files() - read_before};
  }

  Result<std::shared_ptr<model::RankModel>> join(comm::Rendezvous& store, uint64_t epoch, int32_t num_blocks) override {
    if (!model_) return fail("a CUDA rank joins one group only");
    std::shared_ptr<comm::DeviceCollective> group;
    if (options_.tensor_parallel_size > 1) {
      comm::NcclOptions nccl;
      nccl.rank = rank_;
      nccl.size = options_.tensor_parallel_size;
      nccl.prefix = rendezvous_prefix(epoch);
      nccl.operation_timeout = std::chrono::milliseconds(options_.rank_timeout_ms);
      comm::PeerOptions peers;
      peers.shares_device = ranks_per_device_ > 1;
      // Their memory is within reach on one host only.
      peers.enabled =
          ranks_on_host(store, rendezvous_prefix(epoch), rank_, nccl.size, place_) == options_.tensor_parallel_size;
      auto made = comm::make_device_collective(store, nccl, peers);
      if (!made) return tl::unexpected(made.error());
      group = *std::move(made);
      const std::lock_guard lock(mutex_);
      group_ = group;
      epoch_ = epoch;
      if (epoch < aborted_before_) group_->abort();
    }
    if (auto started = model_->start(num_blocks, std::move(group)); !started) return tl::unexpected(started.error());
    return std::shared_ptr<model::RankModel>(std::move(model_));
  }

  void abort(uint64_t before_epoch) override {
    const std::lock_guard lock(mutex_);
    aborted_before_ = std::max(aborted_before_, before_epoch);
    if (group_ && epoch_ < aborted_before_) group_->abort();
  }

  const model::ShardPlan& shard_plan() const override { return *plan_; }

 private:
  // Ranks beyond the devices share them.
  Result<void> choose_device() {
    const auto devices = kernels::device_count();
    if (!devices) return tl::unexpected(devices.error());
    if (*devices == 0) return fail("this host has no CUDA device");
    if (place_.device >= *devices)
      return fail("this host has {} CUDA devices and no device {}", *devices, place_.device);
    if (place_.device >= 0) return kernels::use_device(place_.device);
    ranks_per_device_ = (options_.tensor_parallel_size + *devices - 1) / *devices;
    if (ranks_per_device_ > 1) {
      // NCCL refuses two ranks of one host on one device, so each says that it is a host of its own.
      setenv("NCCL_HOSTID", fmt::format("lorikeet-rank-{}", rank_).c_str(), 0);
      setenv("NCCL_SOCKET_IFNAME", "lo", 0);
    }
    return kernels::use_device(rank_ % *devices);
  }

  Result<uint64_t> kv_bytes() const {
    if (options_.kv_cache_memory_bytes > 0) return options_.kv_cache_memory_bytes;
    double utilization = 0;
    const std::string& text = options_.gpu_memory_utilization;
    std::from_chars(text.data(), text.data() + text.size(), utilization);
    return model::kv_cache_budget(kernels::device_memory(), model_->device_bytes(), utilization / ranks_per_device_);
  }

  const ServerOptions options_;
  const int32_t rank_;
  const RankPlace place_;
  int32_t ranks_per_device_ = 1;
  std::optional<model::ShardPlan> plan_;
  std::unique_ptr<model::CudaModel> model_;  // between load and join
  std::mutex mutex_;                         // guards what follows
  std::shared_ptr<comm::DeviceCollective> group_;
  uint64_t epoch_ = 0;  // of it
  uint64_t aborted_before_ = 0;
};

}  // namespace

std::shared_ptr<RankBackend> make_cuda_backend(const ServerOptions& options, int32_t rank, const RankPlace& place) {
  return std::make_shared<CudaBackend>(options, rank, place);
}

}  // namespace lorikeet::actors
