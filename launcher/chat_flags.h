// The flags about chats: templates, tools, reasoning. Names are vLLM's where it has the same thing.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "actors/wire/options.h"
#include "kernels/base/error.h"

namespace lorikeet::launcher {

void add_chat_flags(CLI::App& app, actors::ServerOptions& options);

Result<void> check_chat_flags(const actors::ChatOptions& options);

// Of --chat-template; empty: the checkpoint's own. Errors: it is neither a file nor a known template.
Result<void> check_chat_template(const std::string& chosen);

}  // namespace lorikeet::launcher
