#include "launcher/flag_values.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "launcher/sizes.h"

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

// Digits between commas, as people write lists and as JSON does.
std::vector<int32_t> token_ids(const std::string& flag, const std::string& text) {
  const auto refuse = [&] { throw CLI::ValidationError(flag, text + " is no list of token ids, such as 1,2,3"); };
  std::string_view rest = text;
  if (rest.size() >= 2 && rest.front() == '[' && rest.back() == ']') rest = rest.substr(1, rest.size() - 2);
  std::vector<int32_t> ids;
  for (bool more = true; more;) {
    while (!rest.empty() && rest.front() == ' ') rest.remove_prefix(1);
    int32_t id = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), id);
    if (error != std::errc() || id < 0) refuse();
    ids.push_back(id);
    rest.remove_prefix(static_cast<size_t>(end - rest.data()));
    while (!rest.empty() && rest.front() == ' ') rest.remove_prefix(1);
    more = !rest.empty();
    if (more && rest.front() != ',') refuse();
    if (more) rest.remove_prefix(1);
  }
  return ids;
}

}  // namespace

CLI::Validator whole_number() {
  return whole_number_in(0, UINT64_MAX, "UINT");
}

CLI::Validator plain_count() {
  const auto change = [](std::string& text) -> std::string {
    if (const auto count = parse_count(text, INT32_MAX)) text = std::to_string(*count);
    return "";
  };
  return CLI::Validator(change, "");
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

CLI::Option* add_token_ids(CLI::App& app, const std::string& flag, std::function<void(std::vector<int32_t>)> take,
                           const std::string& help) {
  return app
      .add_option_function<std::vector<std::string>>(
          flag,
          [flag, take = std::move(take)](const std::vector<std::string>& lists) {
            for (const std::string& list : lists) take(token_ids(flag, list));
          },
          help)
      ->type_name("ID,...")
      ->allow_extra_args(false);
}

}  // namespace lorikeet::launcher
