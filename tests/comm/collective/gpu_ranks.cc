#include "tests/comm/collective/gpu_ranks.h"

#include <glog/logging.h>

#include <cstdlib>
#include <memory>
#include <utility>

#include "tests/comm/collective/processes.h"

namespace lorikeet::comm {

std::string take_device(int rank) {
  setenv("NCCL_HOSTID", std::to_string(rank).c_str(), 1);
  setenv("NCCL_SOCKET_IFNAME", "lo", 1);
  const Result<int> count = kernels::device_count();
  if (!count) return count.error().message;
  if (*count == 0) return "this host has no CUDA device";
  const Result<void> used = kernels::use_device(rank % *count);
  return used ? "" : used.error().message;
}

kernels::DeviceBuffer allocate(uint64_t bytes) {
  Result<kernels::DeviceBuffer> buffer = kernels::DeviceBuffer::allocate(bytes, "a test");
  CHECK(buffer) << buffer.error().message;
  return std::move(*buffer);
}

NcclOptions options_of(int rank, int size) {
  NcclOptions options;
  options.rank = rank;
  options.size = size;
  options.prefix = "test";
  return options;
}

std::string join_and_run(const std::filesystem::path& directory, const NcclOptions& options, bool peers,
                         const GpuRankBody& body) {
  FileRendezvous store(directory);
  PeerOptions wanted;
  wanted.enabled = peers;
  wanted.shares_device = kernels::device_count().value() < options.size;
  Result<std::unique_ptr<DeviceCollective>> collective = make_device_collective(store, options, wanted);
  if (!collective) return collective.error().message;
  if ((*collective)->takes_norm(1, 128, kernels::Dtype::f16) != (peers && options.size > 1)) {
    return "not the communicator that was wanted";
  }
  const Result<kernels::Stream> stream = kernels::Stream::make();
  if (!stream) return stream.error().message;
  try {
    return body(**collective, *stream);
  } catch (const CollectiveError& error) {
    return std::string("threw ") + error.what();
  }
}

void wait_for(DeviceCollective& collective, const kernels::Stream& stream) {
  const Result<kernels::Event> event = kernels::Event::make();
  CHECK(event) << event.error().message;
  event->record(stream);
  collective.wait(*event);
}

void reduce_and_wait(DeviceCollective& collective, const kernels::Stream& stream, size_t count) {
  const kernels::DeviceBuffer data = allocate(count * sizeof(float));
  kernels::fill_bytes(data.data(), 0, data.bytes(), stream);
  collective.all_reduce(data.data(), count, kernels::Dtype::f32, stream);
  wait_for(collective, stream);
}

void GpuRanks::SetUp() {
  const std::string trouble = run_processes(1, take_device)[0];
  if (!trouble.empty()) GTEST_SKIP() << trouble;
}

std::vector<std::string> GpuRanks::run_ranks(int size, const GpuRankBody& body,
                                             std::chrono::milliseconds operation_timeout) const {
  return run_processes(size, [&](int rank) {
    const std::string trouble = take_device(rank);
    if (!trouble.empty()) return trouble;
    NcclOptions options = options_of(rank, size);
    options.prefix = fmt::format("test of {}", size);  // a test may run several groups
    options.operation_timeout = operation_timeout;
    return join_and_run(directory_.path(), options, GetParam(), body);
  });
}

}  // namespace lorikeet::comm
