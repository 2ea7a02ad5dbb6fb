// The content of an adapter directory, sorted by module, before it is held against a base model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/error.h"
#include "model/adapter/adapter_config.h"
#include "model/checkpoint/safetensors.h"
#include "model/checkpoint/safetensors_image.h"

namespace lorikeet::model {

// The tensors of one adapted module; their bytes are there after read_tensors. Those of an embedding are stored the
// other way round: A [rank, vocabulary].
struct AdapterModule {
  std::optional<TensorView> a, b, magnitude;
  bool is_embedding = false;  // lora_embedding_A and _B
  std::string stored_name;    // what the file calls the module, without "base_model.model."
};

// A weight of the base that PEFT saved beside the adapter.
struct BaseCopy {
  std::string module;  // "lm_head"
  TensorView tensor;
};

struct AdapterScan {
  std::filesystem::path dir;
  AdapterConfig config;
  std::map<std::string, AdapterModule, std::less<>> modules;  // by name in the base: "model.layers.0.mlp.up_proj"
  std::vector<BaseCopy> base_copies;
  std::vector<std::string> strange;  // tensors that are no part of a LoRA adapter
  std::string digest;                // 32 hex digits, see read_tensors; empty before

  std::string config_text;
  std::shared_ptr<SafetensorsImage> file;  // the views point into it
};

// Reads the configuration and the header of the tensors: enough to judge names and shapes, whatever the file's size.
// Refuses pickled adapters, several adapters in one file, and what AdapterConfig refuses. within: as FileReader::open.
Result<AdapterScan> scan_adapter(const std::filesystem::path& dir, std::span<const std::string> within = {});

// Whether adapter_config.json targets the module, under either of its names.
Result<bool> is_targeted(const AdapterScan& scan, const std::string& name);

// Reads the tensors into memory, by up to so many threads, refuses LoRA tensors that are not finite, and makes the
// digest: SHA-256, cut, over adapter_config.json and every tensor's name, type, shape and SHA-256, by name.
Result<void> read_tensors(AdapterScan& scan, int threads = 1);

// The same without keeping the tensors: `take` gets those of modules, one by one, on the thread that has read them. Where
// it fails, so does the call.
using TakeTensor = std::function<Result<void>(const TensorEntry& entry, std::span<const uint8_t> bytes)>;
Result<void> stream_tensors(AdapterScan& scan, int threads, const TakeTensor& take);

// "a, b, c and 5 more"
std::string list_names(const std::vector<std::string>& names, size_t shown = 4);

}  // namespace lorikeet::model
