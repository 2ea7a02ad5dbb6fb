#pragma once

#include <string>

namespace lorikeet::actors {

// This host's name as the kernel has it; empty where it cannot be told. Any thread.
std::string host_name();

}  // namespace lorikeet::actors
