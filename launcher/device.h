// Decides where the ranks compute.
#pragma once

#include <string>

#include "kernels/error.h"

namespace lorikeet::launcher {

// "auto", "cpu" or "cuda" -> "cpu" or "cuda". "cuda" is refused with the reason where it cannot work.
Result<std::string> choose_device(const std::string& wanted);

}  // namespace lorikeet::launcher
