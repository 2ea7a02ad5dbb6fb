// The ranks of a communicator between GPUs, as processes that share the GPUs of this host; NCCL takes several ranks on
// one GPU only where it believes them on different hosts (NCCL_HOSTID). The test's own process stays off the GPU, since
// a forked child could not use it then.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/collective/peer_collective.h"
#include "tests/comm/collective/file_rendezvous.h"
#include "tests/comm/collective/processes.h"

namespace lorikeet::comm {

// What one rank does; empty when all was right, else what was wrong.
using GpuRankBody = std::function<std::string(DeviceCollective&, const kernels::Stream&)>;

// The same of ranks that are older than the test: it has nothing but its arguments.
using StandingBody = std::string (*)(DeviceCollective&, const kernels::Stream&);

// In a child: takes a device for the rank. Empty, or why there is none.
std::string take_device(int rank);

// Why this host has no device, or nothing: found out once, by a child.
const std::string& no_device();

kernels::DeviceBuffer allocate(uint64_t bytes);

NcclOptions options_of(int rank, int size);

// Joins the communicator `prefix` and runs the body. An error that it lets out is wrong. Ranks beyond the devices share
// them.
std::string join_and_run(const std::filesystem::path& directory, const NcclOptions& options, bool peers,
                         const GpuRankBody& body);

// Until the stream has come so far, for no longer than the communicator waits. A copy to or from memory that is not
// page-locked holds the host up without a bound: it comes behind this.
void wait_for(DeviceCollective& collective, const kernels::Stream& stream);

// Queues an all-reduce of `count` floats and waits for it.
void reduce_and_wait(DeviceCollective& collective, const kernels::Stream& stream, size_t count);

// Ranks that have taken a device and have joined, and stay for many tests: that takes longer than most of what they do.
class StandingRanks {
 public:
  // What one of them does; an error of the group that it lets out is its answer.
  using Body = std::string (*)(const std::shared_ptr<DeviceCollective>& group, const std::string& argument);

  // peers: with or without their memory; nothing: with it where it can be reached.
  StandingRanks(int size, std::optional<bool> peers);
  std::vector<std::string> run(Body body, const std::string& argument);

 private:
  StandingProcesses::Answer begin(int rank, int size, std::optional<bool> peers) const;

  tests::TempDir directory_;
  StandingProcesses processes_;
};

// With and without the memory of peers.
class GpuRanks : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override;

  std::vector<std::string> run_ranks(
      int size, const GpuRankBody& body,
      std::chrono::milliseconds operation_timeout = std::chrono::milliseconds(30'000)) const;

  // The same by ranks that stay. Where a report is not empty, the next test gets new ones.
  std::vector<std::string> ask_ranks(int size, StandingBody body) const;

  tests::TempDir directory_;
};

inline std::string name_of_ranks(const ::testing::TestParamInfo<bool>& peers) {
  return peers.param ? "Peers" : "Nccl";
}

}  // namespace lorikeet::comm
