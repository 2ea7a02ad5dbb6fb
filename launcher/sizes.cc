#include "launcher/sizes.h"

#include <optional>
#include <string_view>

namespace lorikeet::launcher {
namespace {

constexpr uint64_t kMost = 1ULL << 50;

// What a suffix multiplies by; nothing where there is no such suffix.
std::optional<uint64_t> factor_of(std::string_view suffix) {
  if (suffix.empty() || suffix == "B") return 1;
  constexpr std::string_view large = "KMGT", small = "kmgt";
  const char letter = suffix.front();
  const bool is_small = small.find(letter) != std::string_view::npos;
  const size_t power = (is_small ? small : large).find(letter);
  if (power == std::string_view::npos) return std::nullopt;
  const std::string_view rest = suffix.substr(1);
  uint64_t base = 0;
  if (rest.empty()) base = is_small ? 1000 : 1024;
  if (rest == "i" || rest == "iB") base = 1024;
  if (rest == "B") base = 1000;
  if (base == 0) return std::nullopt;
  uint64_t factor = 1;
  for (size_t i = 0; i <= power; ++i) factor *= base;
  return factor;
}

Result<uint64_t> parse(const std::string& text, uint64_t most, std::string_view examples) {
  size_t end = 0;
  uint64_t whole = 0, tenths = 0, divisor = 1;
  const auto is_digit = [&](size_t i) { return i < text.size() && text[i] >= '0' && text[i] <= '9'; };
  for (; is_digit(end); ++end) {
    whole = whole * 10 + static_cast<uint64_t>(text[end] - '0');
    if (whole > kMost) return fail("'{}' is too large", text);
  }
  const bool has_digits = end > 0;
  if (has_digits && end + 1 < text.size() && text[end] == '.' && is_digit(end + 1)) {
    for (++end; is_digit(end) && divisor < 1000; ++end) {
      tenths = tenths * 10 + static_cast<uint64_t>(text[end] - '0');
      divisor *= 10;
    }
  }
  const auto factor = factor_of(std::string_view(text).substr(end));
  if (!has_digits || !factor || (divisor > 1 && *factor == 1)) {
    return fail("'{}' is not a number such as {}", text, examples);
  }
  if (whole > most / *factor) return fail("'{}' is too large", text);
  const uint64_t value = whole * *factor + tenths * *factor / divisor;
  if (value > most) return fail("'{}' is too large", text);
  return value;
}

}  // namespace

Result<uint64_t> parse_bytes(const std::string& text) {
  return parse(text, kMost, "1073741824, 512M, 2GiB or 2GB");
}

Result<int32_t> parse_count(const std::string& text, int32_t most) {
  constexpr std::string_view examples = "32768, 32k or 32K";
  if (text.find('B') != std::string::npos) return fail("'{}' is not a number such as {}", text, examples);
  const auto value = parse(text, static_cast<uint64_t>(most), examples);
  if (!value) return tl::unexpected(value.error());
  return static_cast<int32_t>(*value);
}

}  // namespace lorikeet::launcher
