#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "kernels/base/console.h"
#include "launcher/commands.h"
#include "launcher/status_query.h"
#include "launcher/status_table.h"
#include "launcher/zmq_flags.h"

namespace lorikeet::launcher {
namespace {

struct StatusFlags {
  ZmqFlags zmq;
  bool json = false;
  int timeout_s = 10;
};

Result<std::string> status_text(const StatusFlags& flags) {
  auto client = connect(flags.zmq, comm::Encoding::cereal);
  if (!client) return tl::unexpected(client.error());
  const auto answer = ask_status(**client, std::chrono::seconds(flags.timeout_s));
  if (!answer) return fail("{}: {}; is a server running there?", flags.zmq.address, answer.error().message);
  if (flags.json) {  // as the server has written it, whatever its version
    const auto json = nlohmann::ordered_json::parse(answer->json, nullptr, false);
    if (!json.is_object()) return fail("the server's answer is not a JSON object");
    return json.dump(2) + "\n";
  }
  const auto status = read_status(answer->json);
  if (!status) return tl::unexpected(status.error());
  return status_table(*status);
}

int show_status(const StatusFlags& flags) {
  const auto text = status_text(flags);
  if (!text) {
    say("lorikeet status: {}", text.error().message);
    return 1;
  }
  if (auto ok = write_text(stdout, *text); !ok) {
    say("lorikeet status: {}", ok.error().message);
    return 1;
  }
  return 0;
}

}  // namespace

void add_status_command(CLI::App& app, int& exit_status) {
  auto flags = std::make_shared<StatusFlags>();
  CLI::App* command = app.add_subcommand("status", "Shows the ranks, adapters and queues of a running server");
  command->option_defaults()->always_capture_default();
  add_zmq_flags(*command, flags->zmq);
  command->add_option("--timeout", flags->timeout_s, "Seconds to wait for the answer");
  command->add_flag("--json", flags->json, "Print the status as JSON");
  command->callback([flags, &exit_status] { exit_status = show_status(*flags); });
}

}  // namespace lorikeet::launcher
