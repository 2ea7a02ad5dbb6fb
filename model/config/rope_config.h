// Rotary embedding settings of config.json: rope_theta and rope_scaling, or the newer rope_parameters that holds both.
// Source: transformers modeling_rope_utils.py.
#pragma once

#include "kernels/base/error.h"
#include "model/config/config.h"
#include "model/config/json_fields.h"

namespace lorikeet::model {

// Sets rope_theta and yarn. Types other than default and yarn are refused.
Result<void> read_rope(const JsonFields& fields, ModelConfig& config);

}  // namespace lorikeet::model
