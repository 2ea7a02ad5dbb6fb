// Which keys of config.json may be there. Whoever makes a model that computes something else says so with a key of its
// own, and a key that is passed over gives another model's answers: so what is not known to be harmless is refused by
// name. Sources: transformers configuration_utils.py, configuration_qwen2.py, configuration_qwen3.py, Qwen v1's
// configuration_qwen.py, and what trainers and quantisers add.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "kernels/base/error.h"
#include "model/config/json_fields.h"

namespace lorikeet::model {

// "_name_or_path", "transformers_version", "unsloth_fixed": what a tool notes down of itself.
bool is_note(std::string_view key);

// Refuses keys that are neither read elsewhere nor known to change nothing, unless they are off (null, false, "",
// empty).
Result<void> refuse_unserved_keys(const JsonFields& fields, const nlohmann::json& object);

}  // namespace lorikeet::model
