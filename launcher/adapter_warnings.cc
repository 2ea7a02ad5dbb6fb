#include "launcher/adapter_warnings.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>

#include "model/adapter/adapter_file.h"
#include "model/adapter/adapter_slice.h"
#include "model/config/config.h"

namespace lorikeet::launcher {
namespace {

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
  model::AdapterOptions bounds;
  bounds.max_rank = options.max_lora_rank;
  const auto file = model::AdapterFile::open(dir, config, bounds);
  if (!file) {
    const std::string& why = file.error().message;
    const bool by_rank = why.find(fmt::format(", at most {} is served", options.max_lora_rank)) != std::string::npos;
    return why + (by_rank ? " (--max-lora-rank)" : "");
  }
  const uint64_t bytes = staged_bytes(file->outline(), plan, options);
  if (bytes <= options.max_cpu_lora_bytes) return "";
  return fmt::format("it takes {} bytes of the head's memory, --max-cpu-lora-bytes allows {}", bytes,
                     options.max_cpu_lora_bytes);
}

}  // namespace

std::vector<std::string> adapter_warnings(const actors::ServerOptions& options, std::chrono::milliseconds patience) {
  std::vector<std::string> warnings;
  const auto end = std::chrono::steady_clock::now() + patience;
  const auto config = model::read_model_config(options.model);
  if (!config) return warnings;  // whoever serves it says why
  const auto plan = model::ShardPlan::make(*config, options.tensor_parallel_size);
  if (!plan) return warnings;
  size_t looked_at = 0;
  for (const auto& [name, dir] : options.lora_modules) {
    if (std::chrono::steady_clock::now() >= end) break;
    ++looked_at;
    const std::string why = why_refused(dir, *config, *plan, options);
    if (why.empty()) continue;
    warnings.push_back(fmt::format("adapter {}: {}; requests for it will fail until that is mended", name, why));
  }
  if (const size_t left = options.lora_modules.size() - looked_at; left > 0) {
    warnings.push_back(fmt::format("{} adapters were not looked at before the start", left));
  }
  return warnings;
}

}  // namespace lorikeet::launcher
