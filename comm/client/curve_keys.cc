#include "comm/client/curve_keys.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <zmq.h>

#include <array>
#include <cstring>
#include <fstream>

namespace lorikeet::comm {
namespace {

constexpr std::string_view kZ85 =
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
constexpr size_t kMaxLines = 100;  // of a file that holds two

using Buffer = std::array<char, kCurveKeyCharacters + 1>;

// `    public-key = "..."`: the value; empty where the line says something else.
std::string value_of(const std::string& line, std::string_view name) {
  const size_t begin = line.find_first_not_of(" \t");
  if (begin == std::string::npos || line.compare(begin, name.size(), name) != 0) return "";
  const size_t open = line.find('"', begin + name.size()), close = line.rfind('"');
  return open == std::string::npos || close <= open ? "" : line.substr(open + 1, close - open - 1);
}

}  // namespace

bool is_curve_key(std::string_view key) {
  return key.size() == kCurveKeyCharacters && key.find_first_not_of(kZ85) == std::string_view::npos;
}

Result<CurveKeys> make_curve_keys() {
  Buffer public_key{}, secret_key{};
  if (zmq_curve_keypair(public_key.data(), secret_key.data()) != 0) {
    return fail("this ZeroMQ makes no keys: {}", zmq_strerror(zmq_errno()));
  }
  return CurveKeys{public_key.data(), secret_key.data()};
}

Result<std::string> curve_public_key(const std::string& secret_key) {
  Buffer public_key{};
  if (!is_curve_key(secret_key) || zmq_curve_public(public_key.data(), secret_key.c_str()) != 0) {
    return fail("that is no secret key of CURVE");
  }
  return std::string(public_key.data());
}

Result<CurveKeys> read_curve_keys(const std::string& path) {
  std::ifstream file(path);
  if (!file) return fail("{}: it cannot be read", path);
  CurveKeys keys;
  std::string line;
  for (size_t i = 0; i < kMaxLines && std::getline(file, line); ++i) {
    if (auto key = value_of(line, "public-key"); !key.empty()) keys.public_key = std::move(key);
    if (auto key = value_of(line, "secret-key"); !key.empty()) keys.secret_key = std::move(key);
  }
  if (!is_curve_key(keys.public_key)) return fail("{}: there is no public-key of 40 characters in it", path);
  if (!keys.secret_key.empty()) {
    const auto derived = curve_public_key(keys.secret_key);
    if (!derived || *derived != keys.public_key) return fail("{}: its two keys are no pair", path);
  }
  return keys;
}

Result<void> write_curve_keys(const std::string& path, const CurveKeys& keys) {
  const std::string text = fmt::format("metadata\ncurve\n    public-key = \"{}\"\n    secret-key = \"{}\"\n",
                                       keys.public_key, keys.secret_key);
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return fail("{}: {}", path, std::strerror(errno));
  const bool written = write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && fsync(file) == 0;
  const int error = errno;
  close(file);
  if (written) return {};
  unlink(path.c_str());
  return fail("{}: {}", path, std::strerror(error));
}

}  // namespace lorikeet::comm
