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
#include "model/checkpoint/safetensors.h"

namespace lorikeet::model {

// The parsed index: tensor name -> file name (a plain basename).
using ShardIndex = std::map<std::string, std::string, std::less<>>;

// `text` is the content of an index file; `where` names it in errors.
Result<ShardIndex> parse_shard_index(std::string_view text, std::string_view where);

// Threads: const methods from any number of threads.
class Checkpoint {
 public:
  // Maps every file and checks every header; reads no tensor.
  static Result<Checkpoint> open(const std::filesystem::path& dir);

  std::optional<TensorView> find(std::string_view name) const;
  Result<TensorView> require(std::string_view name) const;
  bool has(std::string_view name) const { return find(name).has_value(); }

  const std::filesystem::path& dir() const { return dir_; }
  std::vector<std::string> names() const;  // sorted
  uint64_t tensor_bytes() const;           // of all tensors

 private:
  std::filesystem::path dir_;
  std::vector<std::shared_ptr<const SafetensorsFile>> files_;
};

}  // namespace lorikeet::model
