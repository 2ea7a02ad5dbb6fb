// Reads an adapter: first checks names and shapes against the base, then reads it either whole, or matrix by matrix for
// packing, so that no copy of the file is ever in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "kernels/base/error.h"
#include "model/adapter/adapter.h"
#include "model/adapter/adapter_base.h"
#include "model/adapter/adapter_place.h"
#include "model/adapter/adapter_scan.h"
#include "model/config/config.h"

namespace lorikeet::model {

// A or B of one pair, whole, as the file has it.
struct LoraMatrix {
  size_t place = 0;  // among those of a slice (model/adapter/adapter_slice.h)
  bool is_b = false;
  kernels::Dtype dtype = kernels::Dtype::f32;
  const uint8_t* values = nullptr;
};

class AdapterFile {
 public:
  // Reads the configuration and the header, and refuses what read_adapter refuses of them. `config` outlives the file.
  static Result<AdapterFile> open(const std::filesystem::path& dir, const ModelConfig& config,
                                  const AdapterOptions& options = {});

  // Whether every matrix is served as it is in the file. Not so for DoRA, whose magnitudes are needed before packing, for
  // copies of the base's weights, where neurons have to be moved, and for QA-LoRA's groups of inputs.
  bool can_stream() const;

  // The pairs without their values; the digest is not known yet.
  const Adapter& outline() const { return outline_; }

  // Reads every tensor once, on up to `threads` threads, hashes it, and refuses values that are not finite. `take` gets each
  // matrix on the thread that has read it; its values are valid until `take` returns. Returns the digest; of several errors
  // the one of the first tensor by name. Only where can_stream().
  using Take = std::function<Result<void>(const LoraMatrix& matrix)>;
  Result<std::string> stream(const Take& take);

  // The whole, in memory.
  Result<Adapter> read();

 private:
  // Of what a module's pair becomes: one pair, or the three of a fused one.
  struct Target {
    size_t place = 0;
    int32_t first_output = 0, outputs = 0;  // of B
  };

  AdapterFile(AdapterScan scan, const ModelConfig& config, const AdapterOptions& options);

  Result<void> check_names() const;
  Result<LoraPair> plan_pair(const std::string& name, const AdapterModule& module) const;
  std::vector<Target> targets_of(const AdapterPlace& place, const LoraPair& pair, bool is_embedding) const;
  int32_t padded_from(const AdapterModule& module, const AdapterPlace& place) const;
  int32_t pooled_inputs(const AdapterModule& module, const AdapterPlace& place) const;
  Result<void> expect(const TensorView& tensor, std::initializer_list<int64_t> shape) const;
  Result<void> read_module(const std::string& name, const AdapterModule& module, Adapter& adapter);
  Result<void> spread(MlpSide side, int32_t width, LoraPair& pair);
  void store(const AdapterPlace& place, const LoraPair& pair, bool is_embedding, Adapter& adapter) const;

  AdapterScan scan_;
  const ModelConfig* config_;
  AdapterOptions options_;
  Adapter outline_;
  std::optional<std::vector<int32_t>> neurons_;  // where the adapter's neurons are in a padded checkpoint
};

}  // namespace lorikeet::model
