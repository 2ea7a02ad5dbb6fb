#include "launcher/cluster_flags.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>

#include "launcher/version.h"

namespace lorikeet::launcher {
namespace {

constexpr int32_t kMostDevices = 64;
constexpr uint16_t kDefaultPort = 29501;

// A whole number below `limit`; nullopt: it is something else.
std::optional<int32_t> number_of(std::string_view text, int32_t limit) {
  int32_t number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 0 || number >= limit) return std::nullopt;
  return number;
}

}  // namespace

void add_cluster_flags(CLI::App& app, ClusterFlags& flags) {
  actors::ClusterOptions& o = flags.options;
  const std::string group = "Cluster of hosts";
  app.add_option("--nnodes", o.nnodes,
                 "Hosts that the ranks are on, this one included; the others run `lorikeet worker`")
      ->check(CLI::Range(1, 1024))
      ->group(group);
  app.add_option("--master-addr", o.master_addr, "Address to wait for hosts at (default: all of this host)")
      ->group(group);
  app.add_option("--master-port", o.master_port, "Port to wait for hosts at (0 picks one and says it)")->group(group);
  app.add_option("--cluster-dir", o.directory, "Directory of this host's certificate (`lorikeet keygen --cluster`)")
      ->group(group);
  app.add_option("--token-file", o.token_file, "File with the join token (default: token in --cluster-dir)")
      ->group(group);
  app.add_option("--devices", flags.devices, "Devices of this host for ranks: all, none, or numbers such as 0,1")
      ->group(group);
  app.add_option("--interface", o.interface_name,
                 "Network interface of this host's ranks (default: the one that hosts come in by)")
      ->group(group);
  app.add_flag("--mixed-devices", o.mixed_devices, "Let hosts lend devices of several models")->group(group);
  app.add_option("--join-timeout", flags.join_timeout, "Seconds to wait for the hosts at start")
      ->check(CLI::Range(1.0, 1e6))
      ->group(group);
  app.add_flag("--dry-run", flags.dry_run, "Wait for the hosts, print where the ranks would be, and end")->group(group);
}

Result<actors::ClusterOptions> resolve(const ClusterFlags& flags, const std::string& device) {
  actors::ClusterOptions o = flags.options;
  o.version = kVersion;
  o.join_timeout = std::chrono::seconds(static_cast<int64_t>(flags.join_timeout));
  if (o.nnodes == 1) {
    if (flags.dry_run) return fail("--dry-run: give --nnodes, the number of hosts");
    return o;
  }
  if (o.directory.empty())
    return fail("--nnodes {}: give --cluster-dir, which `lorikeet keygen --cluster` makes", o.nnodes);
  auto devices = lent_devices(device, flags.devices);
  if (!devices) return tl::unexpected(devices.error());
  o.devices = *std::move(devices);
  if (o.devices.model.find(", ") != std::string::npos && !o.mixed_devices) {
    return fail("this host has several models of devices: {}; give --mixed-devices or --devices", o.devices.model);
  }
  return o;
}

Result<void> check_cluster_dir(const std::string& directory) {
  std::error_code error;
  if (std::filesystem::is_directory(directory, error)) return {};
  return fail("--cluster-dir {}: it is not a directory", directory);
}

void describe(const std::vector<CudaDevice>& all, actors::HostDevices& lent) {
  if (all.empty()) return;  // of the CPU
  std::set<std::string> models;
  for (const int32_t number : lent.numbers) {
    const CudaDevice& device = all[static_cast<size_t>(number)];
    models.insert(device.model);
    lent.memory_bytes.push_back(device.memory_bytes);
    for (const int32_t other : lent.numbers) {
      lent.links.push_back(static_cast<actors::DeviceLink>(device.links[static_cast<size_t>(other)]));
    }
  }
  for (const std::string& model : models) lent.model += (lent.model.empty() ? "" : ", ") + model;
}

Result<actors::HostDevices> lent_devices(const std::string& kind, const std::string& wanted) {
  actors::HostDevices lent;
  lent.kind = kind;
  if (wanted == "none") return lent;
  int32_t there = kMostDevices;
  std::vector<CudaDevice> all;
  if (kind == "cuda") {
    auto found = cuda_devices();
    if (!found) return tl::unexpected(found.error());
    all = *std::move(found);
    there = static_cast<int32_t>(all.size());
  }
  if (wanted == "all") {
    const int32_t count = kind == "cuda" ? there : 1;
    for (int32_t number = 0; number < count; ++number) lent.numbers.push_back(number);
    describe(all, lent);
    return lent;
  }
  std::set<int32_t> seen;
  for (size_t begin = 0; begin <= wanted.size();) {
    const size_t end = std::min(wanted.find(',', begin), wanted.size());
    const auto number = number_of(std::string_view(wanted).substr(begin, end - begin), there);
    if (!number || !seen.insert(*number).second) {
      return fail("--devices {}: give all, none, or different numbers below {} with commas between", wanted, there);
    }
    lent.numbers.push_back(*number);
    begin = end + 1;
  }
  describe(all, lent);
  return lent;
}

Result<std::pair<std::string, uint16_t>> parse_join_address(const std::string& text) {
  const size_t colon = text.rfind(':');
  const bool bracketed = !text.empty() && text.front() == '[';
  const bool has_port =
      colon != std::string::npos && (bracketed ? colon > 0 && text[colon - 1] == ']' : text.find(':') == colon);
  std::string host = has_port ? text.substr(0, colon) : text;
  if (bracketed && host.size() > 2 && host.back() == ']') host = host.substr(1, host.size() - 2);
  uint16_t port = kDefaultPort;
  if (has_port) {
    const auto number = number_of(std::string_view(text).substr(colon + 1), 65536);
    if (!number || *number == 0) return fail("--join {}: give HOST:PORT", text);
    port = static_cast<uint16_t>(*number);
  }
  if (host.empty()) return fail("--join {}: give HOST:PORT", text);
  return std::pair(host, port);
}

}  // namespace lorikeet::launcher
