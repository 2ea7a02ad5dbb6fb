// Adapters as people read them: a table that fits the terminal, those in use first, and the reasons of those that cannot
// be served.
#pragma once

#include <string>

#include "actors/wire/adapter_list.h"
#include "launcher/terminal.h"

namespace lorikeet::launcher {

// Empty where there is none.
std::string adapters_table(const actors::AdapterList& list, const Terminal& terminal);

}  // namespace lorikeet::launcher
