// The flags of a cluster: of the head (`serve --nnodes`) and of a host that lends its devices (`worker`). Names are those
// of `vllm serve` where they mean the same.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "actors/supervisor/cluster_options.h"
#include "kernels/base/error.h"
#include "launcher/device.h"

namespace lorikeet::launcher {

struct ClusterFlags {
  actors::ClusterOptions options;  // flags that need no translation write here
  std::string devices = "all";
  double join_timeout = 600;  // seconds
  bool dry_run = false;
};

// For `serve`.
void add_cluster_flags(CLI::App& app, ClusterFlags& flags);

// device: what the ranks compute on, cpu or cuda. Errors name the flag.
Result<actors::ClusterOptions> resolve(const ClusterFlags& flags, const std::string& device);

// "all", "none" or "0,1": the devices of this host for `kind`. On the CPU, all is one.
Result<actors::HostDevices> lent_devices(const std::string& kind, const std::string& wanted);

// Of --cluster-dir, which both have. Errors: it is not a directory.
Result<void> check_cluster_dir(const std::string& directory);

// Says of lent devices what they are and how they reach each other; all: those of the host, by number.
void describe(const std::vector<CudaDevice>& all, actors::HostDevices& lent);

// "HOST:PORT", "[IPv6]:PORT" or "HOST".
Result<std::pair<std::string, uint16_t>> parse_join_address(const std::string& text);

}  // namespace lorikeet::launcher
