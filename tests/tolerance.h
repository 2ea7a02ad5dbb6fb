// The one table of tolerances: how far a result may be from its reference.
#pragma once

namespace lorikeet::tests {

// Relative to max(1, |reference|), per element type of the computation under test.
inline constexpr double kFloat32Tolerance = 2e-5;   // float32 kernels against float64, sums of up to ~16,000 terms
inline constexpr double kHalfTolerance = 4e-3;      // fp16 storage
inline constexpr double kBfloat16Tolerance = 3e-2;  // bf16 storage
inline constexpr double kFp8Tolerance = 7e-2;       // fp8 e4m3 storage of keys and values

// Log-probabilities of a whole model against transformers + peft in float32.
inline constexpr double kLogprobTolerance = 0.003;        // the example model
inline constexpr double kFormatLogprobTolerance = 0.005;  // the small checkpoints of every format

// The same with activations of int4 products in 8 bits.
inline constexpr double kInt8ActivationsLogprobTolerance = 0.25;

// The same in float32 against a float64 forward pass.
inline constexpr double kModelTolerance = 1e-4;

// The same on CUDA devices, by the type of the activations.
inline constexpr double kHalfLogprobTolerance = 0.03;
inline constexpr double kBfloat16LogprobTolerance = 0.2;
inline constexpr double kFp8LogprobTolerance = 0.7;  // fp16 with fp8 keys and values (0.62 was seen on an H200)
inline constexpr double kHalfFormatLogprobTolerance = 0.07;
inline constexpr double kBfloat16FormatLogprobTolerance = 0.5;

}  // namespace lorikeet::tests
