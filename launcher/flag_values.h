// What the values of flags must look like, where CLI11 would let others through: it reads -1 as 2^64 - 1, and takes nan
// for a number of every range.
#pragma once

#include <CLI/CLI.hpp>

namespace lorikeet::launcher {

CLI::Validator whole_number();                          // 0 .. 2^64 - 1, in digits
CLI::Validator finite_number(double low, double high);  // low .. high

}  // namespace lorikeet::launcher
