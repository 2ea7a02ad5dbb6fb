#include "launcher/exit_status.h"

#include "kernels/base/console.h"

namespace lorikeet::launcher {

int report_failure(std::string_view command, const Error& error, int status) {
  say("lorikeet {}: {}", command, error.message);
  return status;
}

int exit_status_of(std::string_view command, const Result<void>& done) {
  return done ? 0 : report_failure(command, done.error());
}

int exit_status_of(std::string_view command, const Result<int>& status) {
  return status ? *status : report_failure(command, status.error());
}

}  // namespace lorikeet::launcher
