#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "launcher/commands.h"
#include "launcher/server_flags.h"
#include "launcher/stop_signals.h"

namespace lorikeet::launcher {
namespace {

int serve(const ServerFlags& flags) {
  auto options = resolve(flags);
  if (!options) {
    fmt::print(stderr, "lorikeet serve: {}\n", options.error().message);
    return 2;
  }
  actors::ServerCallbacks callbacks;
  callbacks.on_progress = [](const std::string& line) { fmt::print(stderr, "{}\n", line); };
  callbacks.on_ready = [name = options->served_model_name](const std::string& address) {
    fmt::print("serving {} at {}\n", name, address);
    std::fflush(stdout);
  };
  auto server = actors::Server::start(*options, std::move(callbacks));
  if (!server) {
    fmt::print(stderr, "lorikeet serve: {}\n", server.error().message);
    return 1;
  }
  StopSignals signals(**server);
  return (*server)->wait();
}

}  // namespace

void add_serve_command(CLI::App& app, int& exit_status) {
  auto flags = std::make_shared<ServerFlags>();
  CLI::App* command = app.add_subcommand("serve", "Serves a model to ZeroMQ clients until SIGINT or SIGTERM");
  add_server_flags(*command, *flags);
  command->callback([flags, &exit_status] { exit_status = serve(*flags); });
}

}  // namespace lorikeet::launcher
