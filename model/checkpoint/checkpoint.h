// The tensors of a checkpoint directory: model.safetensors, or the shards that model.safetensors.index.json names.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/error.h"
#include "model/checkpoint/safetensors_file.h"

namespace lorikeet::model {

// The parsed index: tensor name -> file name (a plain basename).
using ShardIndex = std::map<std::string, std::string, std::less<>>;

// `text` is the content of an index file; `where` names it in errors.
Result<ShardIndex> parse_shard_index(std::string_view text, std::string_view where);

// Tensors go by the names that transformers gives a causal model, "model.layers.0...", whatever the module that was
// saved or the wrapper around it had put before them ("layers.0...", "model.model.layers.0...").
// Threads: const methods from any number of threads.
class Checkpoint {
 public:
  // Opens every file and checks every header; reads no tensor.
  static Result<Checkpoint> open(const std::filesystem::path& dir);

  // The tensor without its bytes.
  std::optional<TensorView> find(std::string_view name) const;
  Result<TensorView> require(std::string_view name) const;
  bool has(std::string_view name) const { return places_.find(name) != places_.end(); }

  // The tensor with its bytes, read into memory of its own.
  Result<TensorView> read(std::string_view name) const;

  const std::filesystem::path& dir() const { return dir_; }
  std::vector<std::string> names() const;  // sorted
  uint64_t tensor_bytes() const;           // of all tensors

 private:
  struct Place {
    std::shared_ptr<const SafetensorsFile> file;
    std::string stored_name;
  };

  Result<void> name_tensors(const std::vector<std::shared_ptr<const SafetensorsFile>>& files);

  std::filesystem::path dir_;
  std::map<std::string, Place, std::less<>> places_;
};

}  // namespace lorikeet::model
