#include "launcher/flag_values.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>

namespace lorikeet::launcher {

namespace {

CLI::Validator whole_number_in(uint64_t low, uint64_t high, std::string type) {
  const auto check = [low, high](const std::string& text) -> std::string {
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = error == std::errc() && end == text.data() + text.size();
    return whole && value >= low && value <= high
               ? ""
               : fmt::format("{} is not a whole number from {} to {}", text, low, high);
  };
  return CLI::Validator(check, std::move(type));
}

}  // namespace

CLI::Validator whole_number() {
  return whole_number_in(0, UINT64_MAX, "UINT");
}

CLI::Validator count_from(int32_t low) {
  return whole_number_in(static_cast<uint64_t>(low), INT32_MAX, "COUNT");
}

CLI::Validator finite_number(double low, double high) {
  const auto check = [low, high](const std::string& text) -> std::string {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    const bool fits = !text.empty() && *end == '\0' && value >= low && value <= high;  // a NaN does not
    return fits ? "" : fmt::format("{} is not a number from {} to {}", text, low, high);
  };
  return CLI::Validator(check, fmt::format("NUMBER in [{} - {}]", low, high));
}

}  // namespace lorikeet::launcher
