// Numbers with suffixes, as vLLM's command line and people write them.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/base/error.h"

namespace lorikeet::launcher {

// "512M", "2GiB", "2GB", "1.5G" -> a whole number. K, M, G, T and Ki, Mi, Gi, Ti are powers of 1024; k, m, g, t and
// KB, MB, GB, TB of 1000; a B behind Ki and the like changes nothing. Up to 2^50.
Result<uint64_t> parse_bytes(const std::string& text);

// The same for counts of tokens ("32k" is 32,000, "32K" 32,768), up to `most`; a B is refused.
Result<int32_t> parse_count(const std::string& text, int32_t most);

}  // namespace lorikeet::launcher
