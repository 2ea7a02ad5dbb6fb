// The flags of the HTTP door and of the log. Names follow `vllm serve`.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "actors/wire/options.h"
#include "kernels/base/error.h"
#include "launcher/foreign_flags.h"

namespace lorikeet::launcher {

struct HttpFlags {
  actors::HttpDoorOptions options;  // flags that need no translation write here
  bool no_http = false;
};

// For `serve`.
void add_http_flags(CLI::App& app, HttpFlags& flags);

// Of the head's log, for `serve`.
void add_log_flags(CLI::App& app, actors::LogOptions& options);

// How long running requests have when the server is asked to stop, for `serve`.
void add_drain_flag(CLI::App& app, double& seconds);

// For commands that open no HTTP door: refuses the same flags with a reason. `given` must outlive the parsing.
void refuse_http_flags(CLI::App& app, ForeignFlags& given);

// Keys are in access_flags.h.
Result<actors::HttpDoorOptions> resolve(const HttpFlags& flags);

}  // namespace lorikeet::launcher
