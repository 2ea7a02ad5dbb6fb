// Host weights on their way to the device. Threads: one at a time.
#pragma once

#include <span>
#include <vector>

#include "model/forward/device_weights.h"

namespace lorikeet::model {

class DeviceUpload {
 public:
  static Result<DeviceUpload> make(kernels::Dtype dtype);

  Result<kernels::DeviceBuffer> floats(const std::vector<float>& values);

  // The rows of all parts behind each other, converted. The buffer has nothing else.
  Result<kernels::DeviceBuffer> rows(std::span<const kernels::DenseWeight* const> parts);

  // One linear of projections that take the same x. `paired`: gate and up, interleaved where both are int4.
  Result<DeviceLinear> linear(std::span<const LinearWeights* const> parts, bool paired);

  Result<DeviceLayer> layer(const LayerWeights& weights);

  const kernels::Stream& stream() const { return stream_; }

 private:
  Result<DeviceProduct> product(std::span<const LinearWeights* const> parts, bool paired, int32_t first_output);
  Result<void> convert(const kernels::DenseWeight& from, unsigned char* to);

  kernels::Dtype dtype_ = kernels::Dtype::f16;
  kernels::Stream stream_;
  kernels::DeviceBuffer staging_;
};

}  // namespace lorikeet::model
