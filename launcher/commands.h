// The subcommands of `lorikeet`. Each function adds one to the command line; when it is given, it runs and writes the
// process's exit status to `exit_status`.
#pragma once

#include <CLI/CLI.hpp>

namespace lorikeet::launcher {

void add_about_commands(CLI::App& app, int& exit_status);  // completion, man
void add_chat_command(CLI::App& app, int& exit_status);
void add_serve_command(CLI::App& app, int& exit_status);
void add_batch_command(CLI::App& app, int& exit_status);
void add_bench_command(CLI::App& app, int& exit_status);
void add_submit_command(CLI::App& app, int& exit_status);
void add_adapters_command(CLI::App& app, int& exit_status);
void add_status_command(CLI::App& app, int& exit_status);
void add_inspect_command(CLI::App& app, int& exit_status);
void add_render_command(CLI::App& app, int& exit_status);
void add_tokenize_command(CLI::App& app, int& exit_status);
void add_keygen_command(CLI::App& app, int& exit_status);
void add_worker_command(CLI::App& app, int& exit_status);

}  // namespace lorikeet::launcher
