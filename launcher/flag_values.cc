#include "launcher/flag_values.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <string>

namespace lorikeet::launcher {

CLI::Validator whole_number() {
  const auto check = [](const std::string& text) -> std::string {
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = error == std::errc() && end == text.data() + text.size();
    return whole ? "" : fmt::format("{} is not a whole number from 0 to {}", text, UINT64_MAX);
  };
  return CLI::Validator(check, "UINT");
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
