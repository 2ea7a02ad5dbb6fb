#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "kernels/base/console.h"
#include "launcher/commands.h"
#include "launcher/exit_status.h"
#include "launcher/flag_values.h"
#include "launcher/server_connection.h"
#include "launcher/status_query.h"
#include "launcher/status_view.h"
#include "launcher/terminal.h"
#include "launcher/zmq_flags.h"

namespace lorikeet::launcher {
namespace {

using Clock = std::chrono::steady_clock;

struct StatusFlags {
  ZmqFlags zmq;
  bool json = false;
  int timeout_s = 10;
  std::optional<double> watch;  // seconds between two looks
};

class Looks {
 public:
  explicit Looks(const StatusFlags& flags) : flags_(flags), terminal_(terminal_of(STDOUT_FILENO)) {}

  Result<void> look(comm::ServerClient& client) {
    const auto answer = ask_status(client, std::chrono::seconds(flags_.timeout_s));
    if (!answer) return fail("{}: {}", flags_.zmq.address, answer.error().message);
    return flags_.json ? show_json(answer->json) : show(answer->json);
  }

 private:
  // As the server has written it, whatever its version; one line for each look where there are several.
  Result<void> show_json(const std::string& text) {
    const auto json = nlohmann::ordered_json::parse(text, nullptr, false);
    if (!json.is_object()) return fail("the server's answer is not a JSON object");
    return write_text(stdout, json.dump(flags_.watch ? -1 : 2) + "\n");
  }

  Result<void> show(const std::string& json) {
    auto status = read_status(json);
    if (!status) return tl::unexpected(status.error());
    const Clock::time_point now = Clock::now();
    if (earlier_) earlier_->seconds_ago = std::max(1e-3, std::chrono::duration<double>(now - looked_).count());
    std::string text = status_view(*status, earlier_, terminal_);
    if (flags_.watch && terminal_.present) {
      text = "\x1b[H\x1b[2J" + text;  // from the top left corner, over what was there
    } else if (earlier_) {
      text = "\n" + text;
    }
    earlier_ = EarlierStatus{*std::move(status), 0};
    looked_ = now;
    return write_text(stdout, text);
  }

  const StatusFlags& flags_;
  Terminal terminal_;
  std::optional<EarlierStatus> earlier_;
  Clock::time_point looked_;
};

Result<void> show_status(const StatusFlags& flags) {
  const std::chrono::milliseconds patience =
      std::min<std::chrono::milliseconds>(kGreetingPatience, std::chrono::seconds(std::max(1, flags.timeout_s)));
  auto client = connect_to_server(flags.zmq, comm::Encoding::cereal, patience);
  if (!client) return tl::unexpected(client.error());
  Looks looks(flags);
  while (true) {
    const Clock::time_point begin = Clock::now();
    if (auto ok = looks.look(**client); !ok || !flags.watch) return ok;
    // The client's heartbeats go on meanwhile.
    const auto next = begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(*flags.watch));
    for (auto now = Clock::now(); now < next; now = Clock::now()) {
      const auto message = (*client)->receive(std::chrono::ceil<std::chrono::milliseconds>(next - now));
      const auto* failure = message ? std::get_if<comm::Failure>(&*message) : nullptr;
      if (failure != nullptr && failure->id.empty()) return fail("{}", failure->message);
    }
  }
}

}  // namespace

void add_status_command(CLI::App& app, int& exit_status) {
  auto flags = std::make_shared<StatusFlags>();
  CLI::App* command = app.add_subcommand("status", "Shows the ranks, adapters and queues of a running server");
  command->option_defaults()->always_capture_default();
  add_zmq_flags(*command, flags->zmq);
  command->add_option("--timeout", flags->timeout_s, "Seconds to wait for the answer")->check(CLI::Range(1, 3600));
  command->add_flag("--json", flags->json, "Print the status as JSON: every value, as the server counts it");
  command
      ->add_option("--watch", flags->watch,
                   "Look again and again, every so many seconds, and show tokens per second since the last look")
      ->expected(0, 1)
      ->default_str("2")
      ->check(finite_number(0.1, 3600));
  command->footer(
      "Examples:\n"
      "  lorikeet status --watch\n"
      "  lorikeet status --json | jq .engine.running");
  command->callback([flags, &exit_status] { exit_status = exit_status_of("status", show_status(*flags)); });
}

}  // namespace lorikeet::launcher
