// The flags of a request, for the commands that send some.
#pragma once

#include <CLI/CLI.hpp>

#include "comm/client/client_messages.h"

namespace lorikeet::launcher {

inline constexpr int32_t kDefaultAnswerTokens = 256;  // of --max-tokens, as chat tools have it

// `request` must outlive the parsing.
void add_sampling_flags(CLI::App& app, comm::GenerateRequest& request);

}  // namespace lorikeet::launcher
