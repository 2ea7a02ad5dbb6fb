// Numbers as people read them. Values that go on to programs stay raw, in JSON.
#pragma once

#include <cstdint>
#include <string>

namespace lorikeet::launcher {

std::string bytes_text(uint64_t bytes);     // "512 B", "1.25 MiB", "12.0 GiB"
std::string duration_text(double seconds);  // "850 ns", "2.10 ms", "12.3 s", "4 min 05 s", "2 h 03 min"
std::string count_text(int64_t count);      // "12,345"
std::string rate_text(double per_second);   // "0.52", "12.3", "8,595"

}  // namespace lorikeet::launcher
