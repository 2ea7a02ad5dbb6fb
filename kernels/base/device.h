// One CUDA device as the rest of the engine sees it: memory, streams, events and graphs, without CUDA's headers.
//
// Threads: every function acts on the device that the calling thread chose with use_device. A Stream, Event or Graph is
// used by one thread at a time. Errors: running out of memory, and a device or driver that is not there, are values
// with a sentence. Any other CUDA error means that an earlier kernel or call was wrong: it aborts with the call and its
// reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "kernels/base/error.h"

// CUDA's own handle types, so that no cast is needed where its headers are included.
struct CUstream_st;
struct CUevent_st;
struct CUgraphExec_st;

namespace lorikeet::kernels {

struct DeviceProperties {
  std::string name;
  int32_t multiprocessors = 0;
  int32_t capability = 0;  // 10 * major + minor: 90 for Hopper
  uint64_t total_bytes = 0;
  uint64_t l2_bytes = 0;
  uint64_t shared_bytes_per_block = 0;  // the most that a block can opt in to
  bool multi_process_service = false;   // other processes may compute at the same time
};

struct DeviceMemory {
  uint64_t free_bytes = 0;
  uint64_t total_bytes = 0;
};

// How many devices the driver offers. Fails with the driver's reason where there is no driver; 0 is an answer.
Result<int> device_count();

// Makes `device` the calling thread's device. Fails where it does not exist or cannot be used.
Result<void> use_device(int device);
int current_device();

// Of the calling thread's device.
DeviceProperties device_properties();
DeviceMemory device_memory();

// Waits for all work on the device.
void synchronize_device();

// Bytes of device memory, 256-byte aligned, owned.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  // `purpose` names what the memory is for in the sentence of a failure. The content is undefined.
  static Result<DeviceBuffer> allocate(uint64_t bytes, std::string_view purpose);

  uint64_t bytes() const { return bytes_; }
  void* data() const { return data_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  uint64_t bytes_ = 0;
};

// Page-locked host memory: copies from and to it run beside the host and beside kernels.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  ~PinnedBuffer();
  PinnedBuffer(PinnedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  static Result<PinnedBuffer> allocate(uint64_t bytes, std::string_view purpose);

  uint64_t bytes() const { return bytes_; }
  void* data() const { return data_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  uint64_t bytes_ = 0;
};

class Event;

// A queue of work that runs in order.
class Stream {
 public:
  Stream() = default;
  ~Stream();
  Stream(Stream&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Stream& operator=(Stream&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }

  // An urgent stream's kernels go before those of other streams where both wait for a place.
  static Result<Stream> make(bool urgent = false);

  CUstream_st* handle() const { return handle_; }
  void synchronize() const;             // the host waits for everything queued so far
  void wait(const Event& event) const;  // what is queued after this waits for the event

 private:
  CUstream_st* handle_ = nullptr;
};

// A point in a stream's work.
class Event {
 public:
  Event() = default;
  ~Event();
  Event(Event&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Event& operator=(Event&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }

  // Only events with `timing` serve elapsed_ms; they cost a little more.
  static Result<Event> make(bool timing = false);

  CUevent_st* handle() const { return handle_; }
  void record(const Stream& stream) const;
  bool ready() const;        // true also before the first record
  void synchronize() const;  // the host waits, sleeping

 private:
  CUevent_st* handle_ = nullptr;
};

// Milliseconds between two recorded, completed events with timing.
float elapsed_ms(const Event& begin, const Event& end);

// Work recorded once and replayed without the host's part of every launch.
class Graph {
 public:
  Graph() = default;
  ~Graph();
  Graph(Graph&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Graph& operator=(Graph&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }

  // Records what `work` queues on `stream` (and on streams that it joins by events). Nothing runs. `work` must neither
  // allocate nor synchronise, and the addresses that it passes must stay valid as long as the graph.
  static Result<Graph> capture(const Stream& stream, const std::function<void()>& work);

  explicit operator bool() const { return handle_ != nullptr; }
  void launch(const Stream& stream) const;

 private:
  CUgraphExec_st* handle_ = nullptr;
};

// Copies of `bytes` bytes, queued on the stream. Host memory that is not pinned makes the call wait.
void copy_to_device(void* device, const void* host, uint64_t bytes, const Stream& stream);
void copy_to_host(void* host, const void* device, uint64_t bytes, const Stream& stream);
void copy_on_device(void* to, const void* from, uint64_t bytes, const Stream& stream);
void fill_bytes(void* device, uint8_t value, uint64_t bytes, const Stream& stream);

}  // namespace lorikeet::kernels
