#include "launcher/adapter_warnings.h"

#include <fmt/format.h>

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include "kernels/base/printable.h"
#include "model/adapter/adapter_file.h"
#include "model/adapter/adapter_slice.h"
#include "model/config/config.h"

namespace lorikeet::launcher {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMostSentenceBytes = 1000;
constexpr size_t kMostNamed = 10;  // each in a sentence of its own

// Bytes of the slices of all ranks, in the layout that the device has.
uint64_t staged_bytes(const model::Adapter& outline, const model::ShardPlan& plan,
                      const actors::ServerOptions& options) {
  const auto layout = options.device == "cuda" ? model::SliceLayout::cuda_f16 : model::SliceLayout::cpu_f32;
  uint64_t bytes = 0;
  for (int rank = 0; rank < plan.size(); ++rank) bytes += model::plan_slice(outline, plan, rank, layout).bytes;
  return bytes;
}

std::string why_refused(const std::string& dir, const model::ModelConfig& config, const model::ShardPlan& plan,
                        const actors::ServerOptions& options) {
  std::error_code error;
  if (!std::filesystem::exists(dir + "/adapter_config.json", error) && !error) {
    return fmt::format("there is no {}/adapter_config.json", dir);
  }
  model::AdapterOptions bounds, no_bounds;
  bounds.max_rank = options.max_lora_rank;
  no_bounds.max_rank = std::numeric_limits<int32_t>::max();
  const auto file = model::AdapterFile::open(dir, config, bounds);
  if (!file) {
    const bool by_rank = model::AdapterFile::open(dir, config, no_bounds).has_value();
    return file.error().message + (by_rank ? " (--max-lora-rank)" : "");
  }
  const uint64_t bytes = staged_bytes(file->outline(), plan, options);
  if (bytes <= options.max_cpu_lora_bytes) return "";
  return fmt::format("it takes {} bytes of the head's memory, --max-cpu-lora-bytes allows {}", bytes,
                     options.max_cpu_lora_bytes);
}

// Whoever serves the model says what is wrong with it: then nothing is said of adapters.
WhyRefused look_at_files(const actors::ServerOptions& options) {
  auto config = model::read_model_config(options.model);
  if (!config) return nullptr;
  auto plan = model::ShardPlan::make(*config, options.tensor_parallel_size);
  if (!plan) return nullptr;
  return [config = *std::move(config), plan = *std::move(plan), options](const std::string& dir) {
    return why_refused(dir, config, plan, options);
  };
}

std::string warning_of(const std::string& name, const std::string& why) {
  return printable(fmt::format("adapter {}: {}; requests for it will fail until that is mended", name, why),
                   kMostSentenceBytes);
}

// What the thread that looks and who waits for it have in common.
class OpenedFiles {
 public:
  OpenedFiles(actors::ServerOptions options, Clock::time_point end) : options_(std::move(options)), end_(end) {}

  // On the thread that may be left behind.
  void run(WhyRefused look) {
    if (!look) look = look_at_files(options_);
    for (const auto& [name, dir] : options_.lora_modules) {
      if (!look || !begin(name)) break;
      const std::string why = look(dir);
      const std::lock_guard lock(mutex_);
      if (!why.empty() && refused_.size() < kMostNamed) warnings_.push_back(warning_of(name, why));
      if (!why.empty()) refused_.insert(name);
      looking_at_.reset();
      ++looked_at_;
    }
    const std::lock_guard lock(mutex_);
    ended_ = true;
    knows_model_ = look != nullptr;
    wake_.notify_all();
  }

  RefusedAdapters wait() {
    std::unique_lock lock(mutex_);
    wake_.wait_until(lock, end_, [this] { return ended_; });
    over_ = true;
    if (ended_ && !knows_model_) return {};
    std::vector<std::string> said = warnings_;
    if (refused_.size() > kMostNamed) {
      const size_t more = refused_.size() - kMostNamed;
      said.push_back(fmt::format("{} more would be refused: `lorikeet inspect DIR --base MODEL` says why",
                                 more == 1 ? "1 adapter" : fmt::format("{} adapters", more)));
    }
    if (looking_at_) said.push_back(printable(fmt::format("adapter {}: its files do not answer", *looking_at_)));
    const size_t left = options_.lora_modules.size() - looked_at_ - (looking_at_ ? 1 : 0);
    if (left > 0) {
      said.push_back(fmt::format("{} not looked at before the start",
                                 left == 1 ? "1 adapter was" : fmt::format("{} adapters were", left)));
    }
    return {std::move(said), refused_};
  }

 private:
  bool begin(const std::string& name) {
    const std::lock_guard lock(mutex_);
    if (over_ || Clock::now() >= end_) return false;
    looking_at_ = name;
    return true;
  }

  const actors::ServerOptions options_;
  const Clock::time_point end_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::vector<std::string> warnings_;
  std::set<std::string> refused_;
  std::optional<std::string> looking_at_;
  size_t looked_at_ = 0;
  bool knows_model_ = true, ended_ = false, over_ = false;  // over: nobody waits any more
};

}  // namespace

RefusedAdapters adapter_warnings(const actors::ServerOptions& options, std::chrono::milliseconds patience,
                                 WhyRefused look) {
  if (options.lora_modules.empty()) return {};
  const auto looks = std::make_shared<OpenedFiles>(options, Clock::now() + patience);
  std::thread([looks, look = std::move(look)]() mutable { looks->run(std::move(look)); }).detach();
  return looks->wait();
}

}  // namespace lorikeet::launcher
