#include "tests/comm/collective/gpu_ranks.h"

#include <glog/logging.h>

#include <algorithm>
#include <cstdlib>
#include <map>
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

const std::string& no_device() {
  static const std::string trouble = run_processes(1, [](int) -> std::string {
    const Result<int> count = kernels::device_count();
    if (!count) return count.error().message;
    return *count == 0 ? "this host has no CUDA device" : "";
  })[0];
  return trouble;
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

namespace {

Result<std::unique_ptr<DeviceCollective>> join(const std::filesystem::path& directory, const NcclOptions& options,
                                               std::optional<bool> peers) {
  FileRendezvous store(directory);
  PeerOptions wanted;
  wanted.enabled = peers.value_or(true);
  wanted.shares_device = kernels::device_count().value() < options.size;
  Result<std::unique_ptr<DeviceCollective>> collective = make_device_collective(store, options, wanted);
  const bool reached = collective && (*collective)->takes_norm(1, 128, kernels::Dtype::f16);
  if (collective && peers && reached != (*peers && options.size > 1)) {
    return fail("not the communicator that was wanted");
  }
  return collective;
}

// What it lets out is wrong.
std::string run_body(DeviceCollective& collective, const GpuRankBody& body) {
  const Result<kernels::Stream> stream = kernels::Stream::make();
  if (!stream) return stream.error().message;
  try {
    return body(collective, *stream);
  } catch (const CollectiveError& error) {
    return std::string("threw ") + error.what();
  }
}

std::string run_standing_body(const std::shared_ptr<DeviceCollective>& group, const std::string& body) {
  return run_body(*group, reinterpret_cast<StandingBody>(std::stoull(body)));
}

}  // namespace

StandingRanks::StandingRanks(int size, std::optional<bool> peers)
    : processes_(size, [this, size, peers](int rank) { return begin(rank, size, peers); }) {}

// Functions lie where they lay when the children were made.
std::vector<std::string> StandingRanks::run(Body body, const std::string& argument) {
  return processes_.ask(fmt::format("{} {}", reinterpret_cast<uintptr_t>(body), argument));
}

StandingProcesses::Answer StandingRanks::begin(int rank, int size, std::optional<bool> peers) const {
  if (const std::string trouble = take_device(rank); !trouble.empty()) {
    return [trouble](const std::string&) { return trouble; };
  }
  auto joined = join(directory_.path(), options_of(rank, size), peers);
  if (!joined) return [trouble = joined.error().message](const std::string&) { return trouble; };
  const std::shared_ptr<DeviceCollective> group = *std::move(joined);
  return [group](const std::string& question) -> std::string {
    size_t digits = 0;
    const auto body = reinterpret_cast<Body>(std::stoull(question, &digits));
    try {
      return body(group, question.substr(digits + 1));
    } catch (const CollectiveError& error) {
      return error.what();
    }
  };
}

std::string join_and_run(const std::filesystem::path& directory, const NcclOptions& options, bool peers,
                         const GpuRankBody& body) {
  const auto collective = join(directory, options, peers);
  return collective ? run_body(**collective, body) : collective.error().message;
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
  if (!no_device().empty()) GTEST_SKIP() << no_device();
}

std::vector<std::string> GpuRanks::ask_ranks(int size, StandingBody body) const {
  static std::map<std::pair<int, bool>, std::unique_ptr<StandingRanks>> standing;
  std::unique_ptr<StandingRanks>& ranks = standing[{size, GetParam()}];
  if (ranks == nullptr) ranks = std::make_unique<StandingRanks>(size, GetParam());
  std::vector<std::string> reports =
      ranks->run(run_standing_body, fmt::format("{}", reinterpret_cast<uintptr_t>(body)));
  if (std::any_of(reports.begin(), reports.end(), [](const std::string& report) { return !report.empty(); })) {
    ranks = nullptr;
  }
  return reports;
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
