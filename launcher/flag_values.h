// What the values of flags must look like, where CLI11 would let others through: it reads -1 as 2^64 - 1, and takes nan
// for a number of every range. Its own checks name the least and the largest double where a number is to be positive.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace lorikeet::launcher {

CLI::Validator whole_number();                          // 0 .. 2^64 - 1, in digits
CLI::Validator plain_count();                           // makes 2048 of 2K, and leaves what is no such number as it is
CLI::Validator count_from(int32_t low);                 // low .. 2^31 - 1, in digits
CLI::Validator finite_number(double low, double high);  // low .. high

// A flag that may be repeated, whose value is a list of token ids: 1,2,3 or [1, 2, 3]. `take` gets each.
CLI::Option* add_token_ids(CLI::App& app, const std::string& flag, std::function<void(std::vector<int32_t>)> take,
                           const std::string& help);

}  // namespace lorikeet::launcher
