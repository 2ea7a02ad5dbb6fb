// A server's status as people read it: units, rates, percentiles, lines that fit the terminal. Whatever is not shown here
// stands in `lorikeet status --json`.
#pragma once

#include <optional>
#include <string>

#include "actors/wire/server_status.h"
#include "launcher/terminal.h"

namespace lorikeet::launcher {

// An earlier status, to compute rates since then.
struct EarlierStatus {
  actors::ServerStatus status;
  double seconds_ago = 0;  // above 0
};

std::string status_view(const actors::ServerStatus& status, const std::optional<EarlierStatus>& earlier,
                        const Terminal& terminal);

}  // namespace lorikeet::launcher
