// The weights of a CPU rank in memory that outlives its process (kernels/base/resident_memory.h): written once as they
// are loaded, sealed, and used where they lie, by the rank that loaded them and by its successors.
//
// The memory is a safetensors image, so that whatever is read of it is checked as a file's header is. Its metadata say
// what it is: the layout's version, the rank and the number of ranks, and the origin. Tensors begin at multiples of 64
// bytes; what is between them are tensors "pad.N". "3.q.scale" is layer 3's projection q, its field `scale`.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "kernels/base/resident_memory.h"
#include "model/checkpoint/safetensors.h"
#include "model/checkpoint/weights.h"

namespace lorikeet::model {

// What weights were made from: a digest of the checkpoint's config.json, and how it was loaded. The files of the tensors
// are not part of it: the other ranks of a group hold what was loaded at first, and a successor must hold the same,
// whatever has become of the files.
Result<std::string> weights_origin(const std::filesystem::path& dir, std::string_view load_format);

class ResidentWeights final : public WeightSink {
 public:
  static Result<std::unique_ptr<ResidentWeights>> make(const ShardPlan& plan, int rank, const std::string& origin);

  Result<void> put_outer(RankWeights outer) override;
  Result<void> put_layer(int32_t layer, LayerWeights weights) override;

  // Once everything has been put.
  Result<kernels::ResidentMemory> seal();

 private:
  ResidentWeights(const ShardPlan& plan, kernels::ResidentMemory memory);

  Result<void> put(const std::string& name, std::string_view dtype, std::initializer_list<int64_t> shape,
                   std::span<const uint8_t> bytes);
  Result<void> put(const std::string& name, const kernels::DenseWeight& weight);
  Result<void> put(const std::string& name, const std::vector<float>& values);
  Result<void> put(const std::string& name, const kernels::Int4View& weight);

  const ModelConfig config_;
  kernels::ResidentMemory memory_;
  const uint64_t data_begin_;  // the header lies before it
  uint64_t end_ = 0;           // of the data so far
  int pads_ = 0;
  SafetensorsHeader header_;
};

// The weights in `memory`, which they keep. Fails, saying why, where they are not those of this rank, of that origin and
// in this layout.
Result<RankWeights> attach_weights(std::shared_ptr<const kernels::ResidentMemory> memory, const ShardPlan& plan,
                                   int rank, const std::string& origin);

}  // namespace lorikeet::model
