// What a tensor of an adapter is, by its name. PEFT saves "base_model.model." + the module's name + ".lora_A.weight";
// frameworks that save the module's own state_dict leave the adapter's name in ("lora_A.default.weight"), the names of
// wrappers ("_orig_mod"), or leave out what was before the inner model.
// Source: huggingface/peft utils/save_and_load.py.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace lorikeet::model {

struct AdapterTensorName {
  enum class Kind : uint8_t { a, b, magnitude, embedding_a, embedding_b, base_copy };

  Kind kind = Kind::a;
  std::string module;         // by its name in a causal model: "model.layers.0.mlp.up_proj"
  std::string stored_module;  // as the file has it, without "base_model.model."
  std::string adapter;        // the adapter's own name; empty where it was taken out, and for copies of the base
};

// Nothing where it is no part of a LoRA adapter.
std::optional<AdapterTensorName> parse_adapter_tensor_name(std::string_view name);

}  // namespace lorikeet::model
