#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <memory>

#include "launcher/commands.h"
#include "launcher/server_flags.h"
#include "launcher/stop_signals.h"

namespace lorikeet::launcher {
namespace {

// A wrong path shows at start rather than with the first request; adapters are read when they are asked for.
void warn_of_missing_adapters(const actors::ServerOptions& options) {
  for (const auto& [name, directory] : options.lora_modules) {
    std::error_code ignored;
    if (std::filesystem::exists(directory + "/adapter_config.json", ignored)) continue;
    fmt::print(stderr,
               "warning: adapter {}: there is no {}/adapter_config.json; requests for it will fail until there is\n",
               name, directory);
  }
}

int serve(const ServerFlags& flags) {
  auto options = resolve(flags);
  if (!options) {
    fmt::print(stderr, "lorikeet serve: {}\n", options.error().message);
    return 2;
  }
  for (const std::string& note : flags.foreign.harmless) fmt::print(stderr, "note: {}\n", note);
  warn_of_missing_adapters(*options);
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
