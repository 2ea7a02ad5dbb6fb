// Expected failures are values: a Result holds the thing or an Error with a sentence that says what is wrong and where.
// Broken invariants are not errors: they abort through glog's CHECK_*, which prints both operands.
#pragma once

#include <fmt/format.h>

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace lorikeet {

struct Error {
  std::string message;
};

template <class T>
using Result = tl::expected<T, Error>;

// fail("{}: no tensor named {}", path, name) makes the failed Result.
template <class... Args>
tl::unexpected<Error> fail(fmt::format_string<Args...> format, Args&&... args) {
  return tl::unexpected<Error>(Error{fmt::format(format, std::forward<Args>(args)...)});
}

}  // namespace lorikeet
