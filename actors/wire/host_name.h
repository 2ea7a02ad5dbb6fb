#pragma once

#include <string>

namespace lorikeet::actors {

// This host's name by the kernel; empty where that fails. Any thread.
std::string host_name();

}  // namespace lorikeet::actors
