// The program's version, and the libraries that it was built with.
#pragma once

#include <string>

namespace lorikeet::launcher {

extern const char* const kVersion;  // "0.1.0"

// A line for the program with its commit, and one for what it was built with.
std::string version_text();

}  // namespace lorikeet::launcher
