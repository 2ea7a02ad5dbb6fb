// Talking to people.
//
// Whoever listens may be gone (a closed terminal, `... 2>&1 | head`), may not read, or may have a full disk; none of
// that is a reason to stop or to wait. So nothing here throws, and what standard error does not take is dropped.
// SIGPIPE must be ignored by whoever is not to end with its reader. Threads: any.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

#include "kernels/base/error.h"

namespace lorikeet {

// A line; the line's end is added. Waits at most a second for a reader that does not read, and not at all after that
// until the reader reads again.
void say_line(int descriptor, std::string line);

// The same as it is, for what is rewritten in place on a terminal.
void say_text(int descriptor, std::string_view text);

// The same, for standard error.
template <class... Args>
void say(fmt::format_string<Args...> format, Args&&... args) {
  say_line(2, fmt::format(format, std::forward<Args>(args)...));
}

// What was asked for, as opposed to what is said about it: waits until it is written. Errors: it cannot be.
Result<void> write_text(std::FILE* file, std::string_view text);

}  // namespace lorikeet
