// Flags of `lorikeet submit` about chats and the form of their answers. They are named as the request's fields.
#pragma once

#include <CLI/CLI.hpp>

#include "comm/client/client_messages.h"

namespace lorikeet::launcher {

// `request` must outlive the parsing.
void add_answer_flags(CLI::App& app, comm::GenerateRequest& request);

}  // namespace lorikeet::launcher
