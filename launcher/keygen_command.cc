// `lorikeet keygen`: a pair of keys for ZeroMQ's CURVE, of a server or of a client; or what the hosts of a cluster need.
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "comm/client/curve_keys.h"
#include "comm/cluster/keys.h"
#include "kernels/base/console.h"
#include "launcher/commands.h"
#include "launcher/exit_status.h"

namespace lorikeet::launcher {
namespace {

struct KeygenFlags {
  std::string file;
  std::string cluster;             // a directory
  std::vector<std::string> hosts;  // that get a certificate of their own
  int days = 3650;
};

int cluster_keygen(const KeygenFlags& flags) {
  if (flags.hosts.empty()) {
    if (auto ok = comm::make_cluster_keys(flags.cluster, flags.days); !ok) return report_failure("keygen", ok.error());
    say_line(STDOUT_FILENO, flags.cluster + "/head: for --cluster-dir of `lorikeet serve`");
    say_line(STDOUT_FILENO,
             flags.cluster + "/worker: for --cluster-dir of `lorikeet worker`, to be copied to its host");
    say_line(STDOUT_FILENO, flags.cluster + "/ca-key.pem: stays here, and away from both");
  }
  for (const std::string& host : flags.hosts) {
    if (auto ok = comm::add_worker_keys(flags.cluster, host, flags.days); !ok)
      return report_failure("keygen", ok.error());
    say_line(STDOUT_FILENO, flags.cluster + "/" + host + ": for --cluster-dir of `lorikeet worker` on that host");
  }
  return 0;
}

int keygen(const std::string& path) {
  const auto keys = comm::make_curve_keys();
  if (!keys) return report_failure("keygen", keys.error());
  if (auto ok = comm::write_curve_keys(path, *keys); !ok) return report_failure("keygen", ok.error());
  say_line(STDOUT_FILENO, keys->public_key);
  return 0;
}

}  // namespace

void add_keygen_command(CLI::App& app, int& exit_status) {
  auto flags = std::make_shared<KeygenFlags>();
  CLI::App* command = app.add_subcommand(
      "keygen", "Makes a pair of keys for ZeroMQ's CURVE and prints the public one; or a cluster's certificates");
  auto* file = command->add_option("FILE", flags->file, "Where the pair is written, readable for its owner alone");
  auto* cluster = command->add_option("--cluster", flags->cluster,
                                      "Directory for the certificates and the join token of a cluster");
  command->add_option("--host", flags->hosts, "Add a worker with a certificate of its own to that cluster")
      ->allow_extra_args(false)
      ->needs(cluster);
  command->add_option("--days", flags->days, "Until certificates expire")
      ->check(CLI::Range(1, 36500))
      ->capture_default_str()
      ->needs(cluster);
  file->excludes(cluster);
  command->callback([flags, &exit_status] {
    if (flags->file.empty() && flags->cluster.empty()) throw CLI::RequiredError("FILE or --cluster");
    exit_status = flags->cluster.empty() ? keygen(flags->file) : cluster_keygen(*flags);
  });
}

}  // namespace lorikeet::launcher
