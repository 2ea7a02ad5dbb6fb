// `lorikeet worker`: lends this host's devices to a head on another one.
#include <cstdlib>
#include <memory>

#include "actors/supervisor/host_supervisor.h"
#include "actors/wire/host_name.h"
#include "kernels/base/console.h"
#include "launcher/cluster_flags.h"
#include "launcher/commands.h"
#include "launcher/device.h"
#include "launcher/exit_status.h"
#include "launcher/json_stderr.h"
#include "launcher/sizes.h"
#include "launcher/stop_signals.h"
#include "launcher/version.h"

namespace lorikeet::launcher {
namespace {

struct WorkerFlags {
  actors::WorkerOptions options;  // flags that need no translation write here
  std::string join;
  std::string device = "auto";
  std::string devices = "all";
  std::string download_space = "0";
  bool log_json = false;
};

std::string default_download_dir() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache == '/') {
    return std::string(cache) + "/lorikeet";
  }
  if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/') {
    return std::string(home) + "/.cache/lorikeet";
  }
  return "/var/cache/lorikeet";
}

Result<actors::WorkerOptions> resolve(const WorkerFlags& flags) {
  actors::WorkerOptions o = flags.options;
  if (auto ok = check_cluster_dir(o.directory); !ok) return tl::unexpected(ok.error());
  const auto address = parse_join_address(flags.join);
  if (!address) return tl::unexpected(address.error());
  o.master_addr = address->first;
  o.master_port = address->second;
  const auto kind = choose_device(flags.device);
  if (!kind) return tl::unexpected(kind.error());
  auto devices = lent_devices(*kind, flags.devices);
  if (!devices) return tl::unexpected(devices.error());
  o.devices = *std::move(devices);
  if (o.devices.numbers.empty()) return fail("--devices {}: a worker lends at least one", flags.devices);
  if (o.name.empty()) o.name = actors::host_name();
  if (o.download_dir.empty()) o.download_dir = default_download_dir();
  const auto space = parse_bytes(flags.download_space);
  if (!space) return fail("--download-space: {}", space.error().message);
  o.download_space = *space;
  o.version = kVersion;
  return o;
}

int work(const WorkerFlags& flags) {
  StopSignals signals;
  const auto options = resolve(flags);
  if (!options) return report_failure("worker", options.error(), kWrongCommandLine);
  std::unique_ptr<JsonStderr> json;
  if (flags.log_json) {
    auto begun = JsonStderr::begin();
    if (!begun) return report_failure("worker", begun.error());
    json = *std::move(begun);
  }
  auto server = actors::start_host_supervisor(*options, [](const std::string& line) { say("{}", line); });
  if (!server) return report_failure("worker", server.error());
  signals.route_to(server->get());
  const int status = (*server)->wait();
  signals.route_to(nullptr);
  return status;
}

}  // namespace

void add_worker_command(CLI::App& app, int& exit_status) {
  auto flags = std::make_shared<WorkerFlags>();
  actors::WorkerOptions& o = flags->options;
  CLI::App* command =
      app.add_subcommand("worker", "Lends this host's devices to `lorikeet serve --nnodes` on another host");
  command->add_option("--join", flags->join, "Where the head waits for hosts: HOST:PORT")->required();
  command
      ->add_option("--cluster-dir", o.directory, "Directory of this host's certificate (`lorikeet keygen --cluster`)")
      ->required();
  command->add_option("--token-file", o.token_file, "File with the join token (default: token in --cluster-dir)");
  command->add_option("--device", flags->device, "What its ranks compute on")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command->add_option("--devices", flags->devices, "Devices that it lends: all, or numbers such as 0,1")
      ->capture_default_str();
  command->add_option("--node-name", o.name, "Its name in tables and logs (default: the host's)");
  command->add_option("--interface", o.interface_name,
                      "Network interface of its ranks (default: that of the route to the head)");
  command->add_option("--model", o.model, "Where this host has the checkpoint (default: where the head has it)");
  command
      ->add_option("--download-dir", o.download_dir,
                   "Where its ranks' part of the checkpoint goes if this host has none (default: lorikeet in "
                   "XDG_CACHE_HOME, ~/.cache or /var/cache)")
      ->type_name("DIR");
  command
      ->add_option("--download-space", flags->download_space,
                   "Bytes of all that is kept there, such as 100GiB; what was used the longest ago goes (0: no bound)")
      ->capture_default_str();
  command->add_flag("--log-json", flags->log_json, "Lines of JSON, all that comes to standard error");
  command->add_flag("--spare", o.spare, "Wait in reserve: get ranks only when another host is lost");
  command->callback([flags, &exit_status] { exit_status = work(*flags); });
}

}  // namespace lorikeet::launcher
