// Pairs of keys of ZeroMQ's CURVE, and the files that hold them: those of ZeroMQ's own tools (zmq.auth in Python).
#pragma once

#include <string>
#include <string_view>

#include "kernels/base/error.h"

namespace lorikeet::comm {

inline constexpr size_t kCurveKeyCharacters = 40;  // of Z85

struct CurveKeys {
  std::string public_key, secret_key;  // Z85; the secret one is empty where a file has the public one alone
};

bool is_curve_key(std::string_view key);

Result<CurveKeys> make_curve_keys();

// The public key of a secret one.
Result<std::string> curve_public_key(const std::string& secret_key);

// Errors begin with the path. A written file is readable by its owner only; an existing file is never replaced.
Result<CurveKeys> read_curve_keys(const std::string& path);
Result<void> write_curve_keys(const std::string& path, const CurveKeys& keys);

}  // namespace lorikeet::comm
