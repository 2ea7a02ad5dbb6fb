#include "kernels/base/device.h"

#include <cuda_runtime_api.h>

#include <map>
#include <mutex>

#include "kernels/base/borrowed_buffer.h"
#include "kernels/base/cuda_check.h"

namespace lorikeet::kernels {
namespace {

std::string reason_of(cudaError_t status) {
  return fmt::format("{} ({})", cudaGetErrorString(status), cudaGetErrorName(status));
}

double mib(uint64_t bytes) {
  return static_cast<double>(bytes) / (1 << 20);
}

// Of borrowed buffers, by their addresses: few, and looked up when a buffer ends, so that all others carry nothing of it.
class Owners {
 public:
  void add(const void* data, std::shared_ptr<const void> owner) {
    const std::lock_guard lock(mutex_);
    CHECK(owners_.emplace(data, std::move(owner)).second) << "two buffers at " << data;
  }
  // Whether there was one.
  bool remove(const void* data) {
    std::shared_ptr<const void> owner;  // ends without the lock
    const std::lock_guard lock(mutex_);
    const auto it = owners_.find(data);
    if (it == owners_.end()) return false;
    owner = std::move(it->second);
    owners_.erase(it);
    return true;
  }

 private:
  std::mutex mutex_;
  std::map<const void*, std::shared_ptr<const void>> owners_;
};

Owners& owners() {
  static Owners all;
  return all;
}

thread_local void* next_place = nullptr;  // of the buffer that this thread allocates next; null: the driver's choice

}  // namespace

Result<int> device_count() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorNoDevice) return 0;
  if (status != cudaSuccess) return fail("CUDA cannot be used: {}", reason_of(status));
  return count;
}

Result<void> use_device(int device) {
  const Result<int> count = device_count();
  if (!count) return tl::unexpected(count.error());
  if (device < 0 || device >= *count) return fail("there is no CUDA device {}: this host has {}", device, *count);
  const cudaError_t status = cudaSetDevice(device);
  if (status != cudaSuccess) return fail("CUDA device {} cannot be used: {}", device, reason_of(status));
  return {};
}

int current_device() {
  int device = 0;
  LORIKEET_CHECK_CUDA(cudaGetDevice(&device));
  return device;
}

DeviceProperties device_properties() {
  cudaDeviceProp properties{};
  LORIKEET_CHECK_CUDA(cudaGetDeviceProperties(&properties, current_device()));
  DeviceProperties result;
  result.name = properties.name;
  result.multiprocessors = properties.multiProcessorCount;
  result.capability = 10 * properties.major + properties.minor;
  result.total_bytes = properties.totalGlobalMem;
  result.l2_bytes = static_cast<uint64_t>(properties.l2CacheSize);
  result.shared_bytes_per_block = properties.sharedMemPerBlockOptin;
  int service = 0;
  LORIKEET_CHECK_CUDA(cudaDeviceGetAttribute(&service, cudaDevAttrMpsEnabled, current_device()));
  result.multi_process_service = service != 0;
  return result;
}

DeviceMemory device_memory() {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  LORIKEET_CHECK_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
  return {free_bytes, total_bytes};
}

void synchronize_device() {
  LORIKEET_CHECK_CUDA(cudaDeviceSynchronize());
}

Result<DeviceBuffer> DeviceBuffer::allocate(uint64_t bytes, std::string_view purpose) {
  DeviceBuffer buffer;
  if (bytes == 0) return buffer;
  if (next_place != nullptr) {
    buffer.data_ = std::exchange(next_place, nullptr);
    buffer.bytes_ = bytes;
    return buffer;
  }
  const cudaError_t status = cudaMalloc(&buffer.data_, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // the failure is reported here; it must not be taken for one of the next launch
    const DeviceMemory memory = device_memory();
    return fail("out of GPU memory: {} needs {:.1f} MiB, {:.1f} of {:.1f} MiB are free", purpose, mib(bytes),
                mib(memory.free_bytes), mib(memory.total_bytes));
  }
  if (status != cudaSuccess) return fail("GPU memory for {} cannot be had: {}", purpose, reason_of(status));
  buffer.bytes_ = bytes;
  return buffer;
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr && !owners().remove(data_)) LORIKEET_CHECK_CUDA(cudaFree(data_));
}

DeviceBuffer borrowed_buffer(void* data, uint64_t bytes, std::shared_ptr<const void> owner) {
  if (bytes == 0) return {};  // else the next buffer of this thread would begin here
  owners().add(data, std::move(owner));
  next_place = data;
  return *DeviceBuffer::allocate(bytes, "borrowed memory");
}

Result<PinnedBuffer> PinnedBuffer::allocate(uint64_t bytes, std::string_view purpose) {
  PinnedBuffer buffer;
  if (bytes == 0) return buffer;
  const cudaError_t status = cudaMallocHost(&buffer.data_, bytes);
  if (status != cudaSuccess) {
    cudaGetLastError();
    return fail("{:.1f} MiB of page-locked memory for {} cannot be had: {}", mib(bytes), purpose, reason_of(status));
  }
  buffer.bytes_ = bytes;
  return buffer;
}

PinnedBuffer::~PinnedBuffer() {
  if (data_ != nullptr) LORIKEET_CHECK_CUDA(cudaFreeHost(data_));
}

Result<Stream> Stream::make(bool urgent) {
  int least = 0;
  int greatest = 0;
  Stream stream;
  cudaError_t status = cudaDeviceGetStreamPriorityRange(&least, &greatest);
  if (status == cudaSuccess) {
    status = cudaStreamCreateWithPriority(&stream.handle_, cudaStreamNonBlocking, urgent ? greatest : least);
  }
  if (status != cudaSuccess) return fail("a CUDA stream cannot be made: {}", reason_of(status));
  return stream;
}

Stream::~Stream() {
  if (handle_ != nullptr) LORIKEET_CHECK_CUDA(cudaStreamDestroy(handle_));
}

void Stream::synchronize() const {
  LORIKEET_CHECK_CUDA(cudaStreamSynchronize(handle_));
}

void Stream::wait(const Event& event) const {
  LORIKEET_CHECK_CUDA(cudaStreamWaitEvent(handle_, event.handle(), 0));
}

Result<Event> Event::make(bool timing) {
  Event event;
  const unsigned flags = timing ? cudaEventDefault : cudaEventDisableTiming;
  const cudaError_t status = cudaEventCreateWithFlags(&event.handle_, flags | cudaEventBlockingSync);
  if (status != cudaSuccess) return fail("a CUDA event cannot be made: {}", reason_of(status));
  return event;
}

Event::~Event() {
  if (handle_ != nullptr) LORIKEET_CHECK_CUDA(cudaEventDestroy(handle_));
}

void Event::record(const Stream& stream) const {
  LORIKEET_CHECK_CUDA(cudaEventRecord(handle_, stream.handle()));
}

bool Event::ready() const {
  const cudaError_t status = cudaEventQuery(handle_);
  if (status == cudaErrorNotReady) return false;
  LORIKEET_CHECK_CUDA(status);
  return true;
}

void Event::synchronize() const {
  LORIKEET_CHECK_CUDA(cudaEventSynchronize(handle_));
}

float elapsed_ms(const Event& begin, const Event& end) {
  float ms = 0;
  LORIKEET_CHECK_CUDA(cudaEventElapsedTime(&ms, begin.handle(), end.handle()));
  return ms;
}

Result<Graph> Graph::capture(const Stream& stream, const std::function<void()>& work) {
  // Thread-local: another thread may allocate and copy meanwhile (an adapter's upload).
  LORIKEET_CHECK_CUDA(cudaStreamBeginCapture(stream.handle(), cudaStreamCaptureModeThreadLocal));
  cudaGraph_t recorded = nullptr;
  try {
    work();
  } catch (...) {  // the stream is to be of use behind it
    if (cudaStreamEndCapture(stream.handle(), &recorded) == cudaSuccess) cudaGraphDestroy(recorded);
    cudaGetLastError();
    throw;
  }
  LORIKEET_CHECK_CUDA(cudaStreamEndCapture(stream.handle(), &recorded));
  Graph graph;
  const cudaError_t status = cudaGraphInstantiate(&graph.handle_, recorded, 0);
  LORIKEET_CHECK_CUDA(cudaGraphDestroy(recorded));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return fail("out of GPU memory: a CUDA graph cannot be instantiated");
  }
  LORIKEET_CHECK_CUDA(status);
  return graph;
}

Graph::~Graph() {
  if (handle_ != nullptr) LORIKEET_CHECK_CUDA(cudaGraphExecDestroy(handle_));
}

void Graph::launch(const Stream& stream) const {
  LORIKEET_CHECK_CUDA(cudaGraphLaunch(handle_, stream.handle()));
}

void copy_to_device(void* device, const void* host, uint64_t bytes, const Stream& stream) {
  LORIKEET_CHECK_CUDA(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream.handle()));
}

void copy_to_host(void* host, const void* device, uint64_t bytes, const Stream& stream) {
  LORIKEET_CHECK_CUDA(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream.handle()));
}

void copy_on_device(void* to, const void* from, uint64_t bytes, const Stream& stream) {
  LORIKEET_CHECK_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream.handle()));
}

void fill_bytes(void* device, uint8_t value, uint64_t bytes, const Stream& stream) {
  LORIKEET_CHECK_CUDA(cudaMemsetAsync(device, value, bytes, stream.handle()));
}

}  // namespace lorikeet::kernels
