// The quantisation part of a checkpoint's configuration: config.json's quantization_config or compression_config,
// AutoGPTQ's quantize_config.json, AutoAWQ's quant_config.json or AutoRound's quantization_config.json.
// Sources: AutoGPTQ quantization/config.py, GPTQModel, AutoAWQ models/_config.py, compressed-tensors quantization,
// AutoRound export.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

#include "kernels/base/error.h"
#include "model/config/config.h"

namespace lorikeet::model {

// `config` is the parsed config.json of `dir`. Where several places speak they must agree. Refuses what the loader
// would get wrong: other bit widths, other packings.
Result<QuantConfig> read_quant_config(const std::filesystem::path& dir, const nlohmann::json& config);

// One quantization_config object; `where` names it in errors. `default_method`: the quant_method of an object that
// leaves it out, as AutoGPTQ's quantize_config.json and some old checkpoints do, and that no other key gives away.
Result<QuantConfig> parse_quant_config(const nlohmann::json& object, const std::string& where,
                                       std::string_view default_method = "gptq");

}  // namespace lorikeet::model
