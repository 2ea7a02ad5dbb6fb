#include <fmt/format.h>

#include <chrono>
#include <memory>

#include "comm/client/zmq_client.h"
#include "launcher/commands.h"
#include "launcher/status_table.h"

namespace lorikeet::launcher {
namespace {

struct StatusFlags {
  std::string zmq = "tcp://127.0.0.1:5555";
  bool json = false;
  int timeout_s = 10;
};

Result<std::string> ask_status(const StatusFlags& flags) {
  auto client = comm::ZmqClient::connect(flags.zmq);
  if (!client) return tl::unexpected(client.error());
  if (auto sent = (*client)->send(comm::StatusRequest{"status"}); !sent) return tl::unexpected(sent.error());
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(flags.timeout_s);
  while (std::chrono::steady_clock::now() < end) {
    auto message = (*client)->receive(std::chrono::milliseconds(200));
    if (!message) continue;
    if (const auto* reply = std::get_if<comm::StatusReply>(&*message)) return reply->json;
    if (const auto* failure = std::get_if<comm::Failure>(&*message)) return fail("{}", failure->message);
  }
  return fail("no answer from {} within {} s; is a server running there?", flags.zmq, flags.timeout_s);
}

int show_status(const StatusFlags& flags) {
  const auto text = ask_status(flags);
  if (!text) {
    fmt::print(stderr, "lorikeet status: {}\n", text.error().message);
    return 1;
  }
  const auto status = nlohmann::ordered_json::parse(*text, nullptr, false);
  if (!status.is_object()) {
    fmt::print(stderr, "lorikeet status: the server's answer is not a JSON object\n");
    return 1;
  }
  fmt::print("{}", flags.json ? status.dump(2) + "\n" : status_table(status));
  return 0;
}

}  // namespace

void add_status_command(CLI::App& app, int& exit_status) {
  auto flags = std::make_shared<StatusFlags>();
  CLI::App* command = app.add_subcommand("status", "Shows the ranks, adapters and queues of a running server");
  command->option_defaults()->always_capture_default();
  command->add_option("--zmq", flags->zmq, "Address of the server");
  command->add_option("--timeout", flags->timeout_s, "Seconds to wait for the answer");
  command->add_flag("--json", flags->json, "Print the status as JSON");
  command->callback([flags, &exit_status] { exit_status = show_status(*flags); });
}

}  // namespace lorikeet::launcher
