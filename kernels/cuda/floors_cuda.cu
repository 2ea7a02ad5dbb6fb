#include <algorithm>
#include <functional>
#include <vector>

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/floors_cuda.h"
#include "kernels/cuda/library_gemm.h"

namespace lorikeet::kernels {
namespace {

constexpr int kPasses = 15;
constexpr int kWarmUps = 3;
constexpr int kThreads = 256;
constexpr uint64_t kReadBytes = 4ULL << 30;
constexpr int32_t kProductSize = 8192;

// Random bits, the exponent the same: products' speed depends on how much the bits toggle. One thread per pair, 256 threads.
__global__ void fill_random_halves(uint32_t* pairs, uint64_t count, uint32_t seed) {
  const uint64_t i = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  uint64_t x = (i + (static_cast<uint64_t>(seed) << 40)) * 0x9e3779b97f4a7c15ULL;
  x ^= x >> 31;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 29;
  pairs[i] = (static_cast<uint32_t>(x) & 0x83ff83ffU) | 0x34003400U;  // +-[0.25, 0.5)
}

Result<DeviceBuffer> random_halves(uint64_t bytes, uint32_t seed, const Stream& stream) {
  auto buffer = DeviceBuffer::allocate(bytes, "measuring the device");
  if (!buffer) return buffer;
  const uint64_t pairs = bytes / sizeof(uint32_t);
  fill_random_halves<<<static_cast<unsigned>((pairs + kThreads - 1) / kThreads), kThreads, 0, stream.handle()>>>(
      buffer->as<uint32_t>(), pairs, seed);
  LORIKEET_CHECK_CUDA(cudaGetLastError());
  return buffer;
}

// Reads everything once.
constexpr int kReadSlot = 16 << 10;
constexpr int kReadSlots = 12;
__global__ void __launch_bounds__(kThreads) read_all(const unsigned char* data, uint64_t bytes, uint32_t* sink) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) unsigned char slots[];
  __shared__ __align__(8) uint64_t barriers[kReadSlots];
  if (threadIdx.x != 0) return;
  const uint64_t pieces = bytes / kReadSlot;
  const uint32_t base = device::shared_address(slots);
  const uint32_t barrier = device::shared_address(barriers);
  for (int i = 0; i < kReadSlots; i++) device::barrier_init(barrier + i * 8, 1);
  device::fence_barrier_init();
  const uint64_t policy = device::evict_first_policy();
  auto request = [&](uint64_t i) {
    const uint64_t piece = blockIdx.x + i * gridDim.x;
    if (piece >= pieces) return;
    const int slot = static_cast<int>(i % kReadSlots);
    device::barrier_expect(barrier + slot * 8, kReadSlot);
    device::bulk_copy(base + slot * kReadSlot, data + piece * kReadSlot, kReadSlot, barrier + slot * 8, policy);
  };
  for (int i = 0; i < kReadSlots; i++) request(static_cast<uint64_t>(i));
  for (uint64_t i = 0; blockIdx.x + i * gridDim.x < pieces; i++) {
    device::barrier_wait(barrier + static_cast<int>(i % kReadSlots) * 8, static_cast<uint32_t>(i / kReadSlots & 1));
    request(i + kReadSlots);
  }
  // Never true of the data that is read; the loads must have an end that the compiler cannot see through.
  if (slots[0] == 1 && slots[1] == 2 && slots[2] == 3 && slots[3] == 4 && slots[4] == 5) *sink = 1;
#else
  const uint64_t count = bytes / 16;
  const auto* words = reinterpret_cast<const uint4*>(data);
  uint32_t sum = 0;
  for (uint64_t i = blockIdx.x * kThreads + threadIdx.x; i < count; i += static_cast<uint64_t>(gridDim.x) * kThreads) {
    const uint4 w = __ldcs(words + i);
    sum ^= w.x ^ w.y ^ w.z ^ w.w;
  }
  if (sum == 0x12345) *sink = sum;
#endif
}

// Median seconds of `work`.
Result<double> seconds_of(const Stream& stream, const std::function<void()>& work) {
  auto begin = Event::make(true);
  auto end = Event::make(true);
  if (!begin) return tl::unexpected(begin.error());
  if (!end) return tl::unexpected(end.error());
  std::vector<double> times;
  for (int i = 0; i < kPasses + kWarmUps; i++) {
    begin->record(stream);
    work();
    end->record(stream);
    end->synchronize();
    if (i >= kWarmUps) times.push_back(1e-3 * elapsed_ms(*begin, *end));
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

}  // namespace

Result<Floors> measure_cuda_memory(uint64_t bytes, const Stream& stream) {
  const DeviceProperties properties = device_properties();
  auto data = random_halves(bytes, 9, stream);
  if (!data) return tl::unexpected(data.error());
  auto sink = DeviceBuffer::allocate(16, "measuring the device");
  if (!sink) return tl::unexpected(sink.error());

  // Code for Hopper copies through shared memory, one block per multiprocessor; what was compiled for earlier devices
  // loads with many threads, whatever the device is.
  cudaFuncAttributes attributes{};
  LORIKEET_CHECK_CUDA(cudaFuncGetAttributes(&attributes, read_all));
  const bool bulk = attributes.ptxVersion >= 90;
  device::LaunchShape shape;
  shape.blocks = static_cast<unsigned>(properties.multiprocessors * (bulk ? 1 : 8));
  shape.threads = kThreads;
  shape.shared_bytes = bulk ? static_cast<size_t>(kReadSlot) * kReadSlots : 0;
  LORIKEET_CHECK_CUDA(cudaFuncSetAttribute(read_all, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(shape.shared_bytes)));
  const auto read = seconds_of(stream, [&] {
    device::launch(read_all, shape, stream.handle(), data->as<unsigned char>(), bytes, sink->as<uint32_t>());
  });
  if (!read) return tl::unexpected(read.error());
  const auto copy = seconds_of(
      stream, [&] { copy_on_device(data->data(), data->as<unsigned char>() + bytes / 2, bytes / 2, stream); });
  if (!copy) return tl::unexpected(copy.error());
  return Floors{static_cast<double>(bytes) / *read, static_cast<double>(bytes) / *copy, 0};
}

Result<MeasuredDevice> measure_cuda_device(int device) {
  if (auto ok = use_device(device); !ok) return tl::unexpected(ok.error());
  const std::string name = device_properties().name;
  Result<Floors> floors;
  {
    auto stream = Stream::make();
    if (!stream) return tl::unexpected(stream.error());
    floors = measure_cuda_floors(*stream);
  }
  LORIKEET_CHECK_CUDA(cudaDeviceReset());
  if (!floors) return tl::unexpected(floors.error());
  return MeasuredDevice{name, *floors};
}

Result<Floors> measure_cuda_floors(const Stream& stream) {
  // A quarter of what is free, so that it works beside another process.
  constexpr uint64_t kUnit = 1 << 20;
  const uint64_t bytes = std::min(kReadBytes, device_memory().free_bytes / 4 / kUnit * kUnit);
  auto floors = measure_cuda_memory(bytes, stream);
  if (!floors) return floors;
  auto library = LibraryGemm::make();
  if (!library) return tl::unexpected(library.error());
  constexpr uint64_t kBytes = uint64_t{2} * kProductSize * kProductSize;
  auto x = random_halves(kBytes, 1, stream);
  auto weight = random_halves(kBytes, 2, stream);
  auto out = DeviceBuffer::allocate(kBytes, "measuring the device");
  for (const auto* buffer : {&x, &weight, &out}) {
    if (!*buffer) return tl::unexpected(buffer->error());
  }
  LibraryGemmArgs args;
  args.x = x->data();
  args.weight = weight->data();
  args.out = out->data();
  args.x_stride = args.out_stride = kProductSize;
  args.m = args.n = args.k = kProductSize;
  const auto product = seconds_of(stream, [&] { library->run(args, stream); });
  if (!product) return tl::unexpected(product.error());
  floors->f16_flops = 2.0 * kProductSize * kProductSize * kProductSize / *product;
  return floors;
}

}  // namespace lorikeet::kernels
