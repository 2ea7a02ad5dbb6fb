// How a command ends: the process's exit status, and why it failed, on standard error.
//
//   0    done
//   1    failed
//   2    the command line is wrong
//   130  ended by SIGINT, 143 by SIGTERM; of `serve` only where a second signal came before it had ended
#pragma once

#include <string_view>

#include "kernels/base/error.h"

namespace lorikeet::launcher {

inline constexpr int kFailed = 1;
inline constexpr int kWrongCommandLine = 2;

// Says why `command`, such as "bench serve", failed: "lorikeet bench serve: REASON". Returns `status`.
int report_failure(std::string_view command, const Error& error, int status = kFailed);

// The exit status of a command that ended with `done` or chose its status itself; where it failed, says why.
int exit_status_of(std::string_view command, const Result<void>& done);
int exit_status_of(std::string_view command, const Result<int>& status);

}  // namespace lorikeet::launcher
