#include "launcher/adapter_memory.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>

#include "launcher/device.h"
#include "launcher/sizes.h"
#include "model/forward/step_cost.h"

namespace lorikeet::launcher {
namespace {

constexpr uint64_t kSlotShare = 16, kHostShare = 8;
constexpr int32_t kUsualRank = 16;
constexpr int32_t kMostGiven = 65'536;  // of a number of slots that is asked for
constexpr uint64_t kLeastHostBytes = 256ULL << 20;

// What the control group of this process and those around it allow; 0: they say nothing.
uint64_t cgroup_limit() {
  const std::filesystem::path root = "/sys/fs/cgroup";
  std::string group;
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (line.starts_with("0::/")) group = line.substr(4);
  }
  uint64_t least = 0;
  for (std::filesystem::path at = (root / group).lexically_normal();; at = at.parent_path()) {
    uint64_t bytes = 0;
    std::ifstream file(at / "memory.max");  // "max" is no number
    if (file >> bytes && bytes > 0) least = least == 0 ? bytes : std::min(least, bytes);
    if (at == root || !at.has_relative_path()) return least;
  }
}

}  // namespace

MemoryFacts memory_facts(const std::string& device) {
  MemoryFacts facts;
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page > 0) facts.host = static_cast<uint64_t>(pages) * static_cast<uint64_t>(page);
  const uint64_t limit = cgroup_limit();
  if (limit > 0) facts.host = facts.host > 0 ? std::min(facts.host, limit) : limit;
  if (device == "cuda") {
    if (const auto devices = cuda_devices(); devices && !devices->empty()) {
      facts.device = devices->front().memory_bytes;
      facts.devices = static_cast<int>(devices->size());
    }
  }
  return facts;
}

Result<void> choose_adapter_memory(const std::string& max_loras, const std::string& max_cpu_lora_bytes,
                                   const model::ShardPlan& plan, const MemoryFacts& facts,
                                   actors::ServerOptions& options) {
  if (max_cpu_lora_bytes == "auto") {
    options.max_cpu_lora_bytes = std::max(kLeastHostBytes, facts.host / kHostShare);
  } else {
    const auto bytes = parse_bytes(max_cpu_lora_bytes);
    if (!bytes) return fail("--max-cpu-lora-bytes: {}", bytes.error().message);
    options.max_cpu_lora_bytes = *bytes;
  }
  if (max_loras != "auto") {
    const auto count = parse_count(max_loras, kMostGiven);
    if (!count || *count < 1) return fail("--max-loras {}: give a value from 1 to {}, or auto", max_loras, kMostGiven);
    options.max_loras = *count;
    options.lora_memory_bytes = 0;
    return {};
  }
  const bool is_gpu = options.device == "cuda";
  const auto ranks = static_cast<uint64_t>(options.tensor_parallel_size);
  const auto devices = static_cast<uint64_t>(std::max(1, facts.devices));
  const uint64_t share =
      is_gpu ? facts.device / kSlotShare / ((ranks + devices - 1) / devices) : facts.host / kSlotShare / ranks;
  const int32_t rank = std::min(options.max_lora_rank, kUsualRank);
  const uint64_t bytes =
      model::step_cost(plan, 0, {2, 2, is_gpu ? 2 : 4}).adapter_bytes_per_rank * static_cast<uint64_t>(rank);
  options.lora_memory_bytes = facts.of_all_ranks ? share : 0;
  options.max_loras = kSlotsUnknown;
  if (facts.of_all_ranks && share > 0 && bytes > 0) {
    options.max_loras = static_cast<int32_t>(std::clamp<uint64_t>(share / bytes, kFewestSlots, kMostSlots));
  }
  return {};
}

}  // namespace lorikeet::launcher
