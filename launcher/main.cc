// The one binary. `head` and `rank` are what the supervisor starts; they are not for people.
#include <CLI/CLI.hpp>
#include <cstring>
#include <string>
#include <vector>

#include "actors/head/head.h"
#include "actors/rank/rank.h"
#include "launcher/command_line.h"
#include "launcher/commands.h"
#include "launcher/help_formatter.h"
#include "launcher/standard_streams.h"
#include "launcher/version.h"

int main(int argc, char** argv) {
  lorikeet::launcher::open_closed_streams();
  if (argc > 1 && std::strcmp(argv[1], "head") == 0) return lorikeet::actors::run_head();
  if (argc > 1 && std::strcmp(argv[1], "rank") == 0) return lorikeet::actors::run_rank();

  CLI::App app{"Lorikeet serves a Qwen model in int4, cut over several devices,\nwith a LoRA adapter per request.",
               "lorikeet"};
  app.set_version_flag("--version", lorikeet::launcher::version_text);
  app.require_subcommand(1);
  app.formatter(std::make_shared<lorikeet::launcher::HelpFormatter>());
  int exit_status = 0;
  lorikeet::launcher::add_serve_command(app, exit_status);
  lorikeet::launcher::add_batch_command(app, exit_status);
  lorikeet::launcher::add_bench_command(app, exit_status);
  lorikeet::launcher::add_submit_command(app, exit_status);
  lorikeet::launcher::add_chat_command(app, exit_status);
  lorikeet::launcher::add_status_command(app, exit_status);
  lorikeet::launcher::add_adapters_command(app, exit_status);
  lorikeet::launcher::add_inspect_command(app, exit_status);
  lorikeet::launcher::add_tokenize_command(app, exit_status);
  lorikeet::launcher::add_render_command(app, exit_status);
  lorikeet::launcher::add_about_commands(app, exit_status);
  lorikeet::launcher::add_keygen_command(app, exit_status);
  lorikeet::launcher::add_worker_command(app, exit_status);
  app.footer(
      "Examples:\n"
      "  lorikeet serve MODEL --lora-modules NAME=DIR ...   # says what to try\n"
      "  lorikeet chat --adapter NAME\n"
      "  lorikeet status --watch\n"
      "\n"
      "`lorikeet COMMAND --help` lists what a command takes.");
  return lorikeet::launcher::run_command_line(app, std::vector<std::string>(argv + 1, argv + argc), exit_status);
}
