// The live page at `/` of the HTTP door (live_page.html): what the server does, its adapters, a box to try prompts. One
// file that loads nothing from other hosts; its data comes from the door's other paths, with a key where one is needed.
#pragma once

#include <string_view>

namespace lorikeet::actors {

std::string_view live_page();  // HTML

// What a browser may do with it: its own script, styles and icon, and questions to this server alone.
inline constexpr const char* kLivePagePolicy =
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

}  // namespace lorikeet::actors
