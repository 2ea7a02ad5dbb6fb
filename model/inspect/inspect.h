// What a checkpoint or an adapter is, what it costs on every rank, and whether it can be served: for people (a table)
// and programs (JSON). What judges is what serving goes through: servable_checkpoint.h and read_adapter.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "kernels/base/error.h"
#include "model/config/config.h"

namespace lorikeet::model {

inline constexpr int kInspectedSizes[] = {1, 2, 4, 8};  // tensor-parallel sizes

struct MemoryFit {
  uint64_t memory = 0;  // bytes of one device
  int64_t tokens = 0;   // KV positions that fit beside the weights on every rank; 0: the weights alone do not fit
};

// One way to cut a model, or the sentence that says why it cannot be cut so.
struct SizeReport {
  int size = 1;
  std::optional<std::string> refusal;
  std::vector<uint64_t> weight_bytes;  // [rank], as the checkpoint stores them, the embedding whole on every rank
  std::vector<int32_t> neurons;        // [rank], of the MLP
  uint64_t kv_bytes_per_token = 0;     // of one rank
  std::vector<MemoryFit> fits;
};

struct CheckpointReport {
  std::filesystem::path dir;
  std::optional<std::string> refusal;  // empty: it can be served
  std::optional<ModelConfig> config;   // empty where config.json itself is refused
  int64_t tensors = 0;
  uint64_t file_bytes = 0;
  bool act_order = false;                            // a group index that is not simply input / group_size
  int32_t quantised_modules = 0, dense_modules = 0;  // of the linear layers
  int32_t eight_bit_modules = 0;                     // of the quantised ones; of 4 bits are the others
  uint64_t eight_bit_weights = 0;                    // of those modules, all ranks together
  std::vector<SizeReport> sizes;                     // one for each of kInspectedSizes
};

struct InspectOptions {
  std::vector<uint64_t> memories = {24ull << 30, 40ull << 30, 80ull << 30};  // bytes of a device
  int32_t kv_element_bytes = 2;  // 4 for the CPU engine, whose cache is float32
};

CheckpointReport inspect_checkpoint(const std::filesystem::path& dir, const InspectOptions& options = {});

// Of a report only the counts of linear layers, which take headers and group indices alone.
Result<CheckpointReport> count_linear_layers(const std::filesystem::path& dir);

// What the modules of 8 bits cost, for whoever is about to serve the checkpoint. Empty where it has none, and where it
// cannot be read, which the one who serves it will say.
std::string eight_bit_cost(const std::filesystem::path& dir);

struct AdapterModuleReport {
  std::string module;
  int32_t rank = 0;
  float scale = 0;
  std::string dtype;
  bool dora = false;
  bool matched = false;  // the base has such a module
};

struct AdapterSizeReport {
  int size = 1;
  std::optional<std::string> refusal;
  std::vector<uint64_t> bytes;  // [rank], of A and B as the file stores them
};

struct AdapterReport {
  std::filesystem::path dir;
  std::optional<std::string> refusal;
  bool judged = false;  // against a base; without one only the files themselves are
  std::string digest;
  bool rslora = false, dora = false;
  uint64_t file_bytes = 0;
  std::vector<AdapterModuleReport> modules;
  std::vector<std::string> targets_without_tensors;  // entries of target_modules
  std::vector<std::string> strange_tensors;
  std::vector<AdapterSizeReport> sizes;  // empty without a base, or where the adapter is refused
};

// `base`: the model that the adapter would be served over.
AdapterReport inspect_adapter(const std::filesystem::path& dir, const std::optional<ModelConfig>& base);

// A directory with adapter_config.json is an adapter, one with config.json a checkpoint.
enum class DirectoryKind : uint8_t { checkpoint, adapter, neither };
DirectoryKind kind_of_directory(const std::filesystem::path& dir);

std::string to_table(const CheckpointReport& report);
std::string to_table(const AdapterReport& report);
nlohmann::ordered_json to_json(const CheckpointReport& report);
nlohmann::ordered_json to_json(const AdapterReport& report);

}  // namespace lorikeet::model
