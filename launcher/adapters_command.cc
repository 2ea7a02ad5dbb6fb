#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <string>

#include "actors/wire/adapter_list.h"
#include "comm/client/limits.h"
#include "comm/client/zmq_client.h"
#include "comm/codec/json_codec.h"
#include "kernels/base/console.h"
#include "launcher/adapters_view.h"
#include "launcher/commands.h"
#include "launcher/exit_status.h"
#include "launcher/server_connection.h"
#include "launcher/terminal.h"

namespace lorikeet::launcher {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kAnswerPatience{200};

struct AdaptersFlags {
  ZmqFlags zmq;
  bool json = false;
  int timeout_s = 150;  // above what the server gives a load
  std::string name, path;
  bool in_place = false;
};

Result<comm::AdapterReply> ask(const AdaptersFlags& flags, const std::string& action) {
  auto client = connect_to_server(flags.zmq);
  if (!client) return tl::unexpected(client.error());
  comm::AdapterRequest request;
  request.id = action;
  request.action = action;
  if (action != "list") request.name = flags.name;
  if (action == "load") request.path = flags.path;
  request.load_inplace = flags.in_place;
  if (auto sent = (*client)->send(request); !sent) return tl::unexpected(sent.error());
  const auto deadline = Clock::now() + std::chrono::seconds(flags.timeout_s);
  while (Clock::now() < deadline) {
    auto message = (*client)->receive(kAnswerPatience);
    if (!message) continue;
    if (auto* reply = std::get_if<comm::AdapterReply>(&*message)) return std::move(*reply);
    if (const auto* failure = std::get_if<comm::Failure>(&*message)) return fail("{}", failure->message);
  }
  return fail("{}: no answer in {} s", flags.zmq.address, flags.timeout_s);
}

Result<std::string> text_of(const comm::AdapterReply& reply, bool as_json) {
  if (!reply.json) return reply.message + "\n";
  const auto json = comm::parse_bounded_json(*reply.json, comm::kStatusLimits);
  if (!json) return fail("the server's answer: {}", json.error().message);
  if (as_json) return json->dump(2) + "\n";
  const auto list = comm::from_json_value<actors::AdapterList>(*json, comm::JsonKeys::any);
  if (!list) return fail("the server's answer: {}", list.error().message);
  return fmt::format("{} adapters\n{}", list->adapters.size(), adapters_table(*list, terminal_of(STDOUT_FILENO)));
}

// The server names the field of its request; here that is a flag.
std::string with_flags(const std::string& sentence, const AdaptersFlags& flags) {
  const bool names_field = !flags.in_place && sentence.find("load_inplace") != std::string::npos;
  return names_field ? sentence + " Here that is --load-inplace." : sentence;
}

int run(const AdaptersFlags& flags, const std::string& action) {
  auto shown = ask(flags, action).and_then([&](const comm::AdapterReply& reply) { return text_of(reply, flags.json); });
  auto written = shown.and_then([](const std::string& text) { return write_text(stdout, text); });
  if (written) return 0;
  return report_failure("adapters " + action, {with_flags(written.error().message, flags)});
}

}  // namespace

void add_adapters_command(CLI::App& app, int& exit_status) {
  auto flags = std::make_shared<AdaptersFlags>();
  CLI::App* command = app.add_subcommand("adapters", "Shows and changes the adapters of a running server");
  command->require_subcommand(1);
  command->footer(
      "Examples, of a server with --enable-runtime-lora-updating --lora-dir /adapters:\n"
      "  lorikeet adapters list\n"
      "  lorikeet adapters load moby moby           # /adapters/moby\n"
      "  lorikeet adapters load moby moby-2 --load-inplace\n"
      "  lorikeet adapters unload moby");
  const auto add = [&](const std::string& action, const std::string& help) {
    CLI::App* sub = command->add_subcommand(action, help);
    sub->option_defaults()->always_capture_default();
    add_zmq_flags(*sub, flags->zmq);
    sub->add_option("--timeout", flags->timeout_s, "Seconds to wait for the answer")->check(CLI::Range(1, 86400));
    if (action != "list") sub->add_option("NAME", flags->name, "Name of the adapter")->required();
    sub->callback([flags, action, &exit_status] { exit_status = run(*flags, action); });
    return sub;
  };
  add("list", "What is served, and where it is: in a slot, the host's memory, on disk")
      ->add_flag("--json", flags->json, "Print it as JSON");
  CLI::App* load = add("load", "Gives a name to an adapter below a --lora-dir of the server");
  load->add_option("PATH", flags->path, "Its directory, as the server sees it; relative to a --lora-dir")->required();
  load->add_flag("--load-inplace", flags->in_place, "The name may be taken, and leads to this one from then on");
  add("unload", "Takes a name away; what runs on it is finished");
  add("pin", "Keeps an adapter in memory and in its slot");
  add("unpin", "Lets it be evicted again");
  add("warm", "Puts an adapter on all ranks before its first request");
}

}  // namespace lorikeet::launcher
