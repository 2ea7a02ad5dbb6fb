// The tensors of one quantised linear module as GPTQ, AWQ and compressed-tensors pack them, in 4 bits or 8.
// Layouts: formats reference, section 3 (AutoGPTQ qlinear_cuda_old.py, AutoAWQ modules/linear/gemm.py,
// compressed-tensors compressors/pack_quantized).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "kernels/base/error.h"
#include "model/checkpoint/checkpoint.h"
#include "model/config/config.h"

namespace lorikeet::model {

// W [n, k]; a word holds 32 / bits values.
struct QuantisedModule {
  QuantMethod method = QuantMethod::gptq;
  int32_t bits = 4;  // 4 or 8
  int32_t n = 0, k = 0;
  int32_t groups = 0;              // rows of scale and zero that the file holds
  int32_t group_size = 0;          // inputs per group where there is no group index
  bool must_be_symmetric = false;  // the configuration says so: every zero is 8 (128)
  TensorView weight;               // in words of 4 bits: gptq [k/8, n], awq [k, n/8], compressed-tensors [n, ceil(k/8)]
  TensorView scales;               // [groups, n]; compressed-tensors [n, groups]
  // gptq, awq [groups, n/8] words; compressed-tensors [ceil(n/8), groups] words or I8 [n, groups]; absent: 8 (128)
  std::optional<TensorView> zeros;
  std::optional<TensorView> group_index;  // [k]; absent: input / group_size
};

bool is_gptq(QuantMethod method);

// Whether the module's packed tensors are there: checkpoints leave single modules unquantised.
bool is_quantised(const Checkpoint& checkpoint, const QuantConfig& quant, const std::string& module);

// The tensors of a quantised module with `outputs` rows and `inputs` columns, found, their shapes checked. How wide the
// values and how large the groups are, and whether they lie as GPTQ's or as AWQ's, the shapes say: the configuration
// counts only where they leave a choice. Only a group index has its bytes.
Result<QuantisedModule> find_quantised_module(const Checkpoint& checkpoint, const QuantConfig& quant,
                                              const std::string& module, int32_t outputs, int32_t inputs);

// Reads what check_module_values looks at, and with `weight` the values themselves: any of those is right.
Result<void> read_module(QuantisedModule& module, bool weight);

// The dtypes and sizes that de-quantising depends on; reads no value.
Result<void> check_module_shapes(const QuantisedModule& module);

// The values that it depends on: group indices in range; finite scales; no stored GPTQ v1 zero of 15 (255), which one
// implementation takes for 16 and another for 0; no symmetric GPTQ file of the other version (v1 stores a zero less
// one, v2 as it is: reading one as the other shifts every weight). The shapes must have been checked.
Result<void> check_module_values(const QuantisedModule& module);

// Of a module whose bytes have been read and checked:
int32_t group_of(const QuantisedModule& module, int32_t input);
float scale_of(const QuantisedModule& module, int32_t group, int32_t output);
int32_t zero_of(const QuantisedModule& module, int32_t group, int32_t output);
// The stored values of one input for outputs [first, first + count).
void read_input(const QuantisedModule& module, int32_t input, int32_t first, int32_t count, uint8_t* values);

// A word of a tensor of I32; the bytes may be unaligned.
uint32_t word_at(const TensorView& tensor, size_t i);

}  // namespace lorikeet::model
