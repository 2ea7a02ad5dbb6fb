#include "launcher/device.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>
#include <utility>

#ifdef LORIKEET_HAVE_CUDA
#include "kernels/base/device.h"
#include "kernels/base/host_devices.h"
#include "kernels/cuda/floors_cuda.h"
#endif

namespace lorikeet::launcher {
namespace {

#ifdef LORIKEET_HAVE_CUDA

// How many CUDA devices could be used; an error says why there are none.
Result<int> count_cuda() {
  auto count = kernels::device_count();
  if (count && *count == 0) return fail("this host has no CUDA device");
  return count;
}

Result<std::vector<CudaDevice>> find_cuda() {
  if (const auto count = count_cuda(); !count) return tl::unexpected(count.error());
  const auto found = kernels::host_devices();
  if (!found) return tl::unexpected(found.error());
  std::vector<CudaDevice> all;
  for (const kernels::HostDevice& device : *found) {
    CudaDevice& one = all.emplace_back(CudaDevice{device.name, device.total_bytes, {}});
    for (size_t other = 0; other < device.reaches.size(); ++other) {
      one.links.push_back(static_cast<uint8_t>(device.reaches[other] + device.reaches_fully[other]));
    }
  }
  return all;
}

Result<MeasuredDevice> measure_cuda() {
  const auto count = count_cuda();
  if (!count) return tl::unexpected(count.error());
  auto measured = kernels::measure_cuda_device(0);
  if (!measured) return tl::unexpected(measured.error());
  return MeasuredDevice{std::move(measured->name), *count, measured->floors};
}

#else

Result<int> count_cuda() {
  return fail("this build has no CUDA ranks");
}

Result<std::vector<CudaDevice>> find_cuda() {
  return fail("this build has no CUDA ranks");
}

Result<MeasuredDevice> measure_cuda() {
  return fail("this build has no CUDA ranks");
}

#endif

}  // namespace

Result<std::string> choose_device(const std::string& wanted) {
  if (wanted == "cpu") return wanted;
  const auto devices = count_cuda();
  if (wanted == "cuda" && !devices) return fail("--device cuda: {}", devices.error().message);
  return std::string(devices ? "cuda" : "cpu");
}

Result<std::vector<CudaDevice>> cuda_devices() {
  return find_cuda();
}

Result<MeasuredDevice> measure_device(const std::string& device) {
  if (device == "cuda") return measure_cuda();
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  return MeasuredDevice{fmt::format("CPU, {} cores", cores), 1, kernels::measure_cpu_floors(cores)};
}

}  // namespace lorikeet::launcher
