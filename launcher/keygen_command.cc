// `lorikeet keygen`: a pair of keys for ZeroMQ's CURVE, of a server or of a client.
#include <unistd.h>

#include <memory>
#include <string>

#include "comm/client/curve_keys.h"
#include "kernels/base/console.h"
#include "launcher/commands.h"

namespace lorikeet::launcher {
namespace {

int keygen(const std::string& path) {
  const auto keys = comm::make_curve_keys();
  if (!keys) {
    say("lorikeet keygen: {}", keys.error().message);
    return 1;
  }
  if (auto ok = comm::write_curve_keys(path, *keys); !ok) {
    say("lorikeet keygen: {}", ok.error().message);
    return 1;
  }
  say_line(STDOUT_FILENO, keys->public_key);
  return 0;
}

}  // namespace

void add_keygen_command(CLI::App& app, int& exit_status) {
  auto path = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("keygen", "Makes a pair of keys for ZeroMQ's CURVE; prints the public one");
  command->add_option("FILE", *path, "Where the pair is written, readable for its owner alone")->required();
  command->callback([path, &exit_status] { exit_status = keygen(*path); });
}

}  // namespace lorikeet::launcher
