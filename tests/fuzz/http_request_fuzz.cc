// The bytes of an HTTP connection. However they are cut, the same request comes out of them, within its limits.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "comm/http/request_parser.h"

namespace {

using lorikeet::comm::RequestParser;

constexpr RequestParser::Limits kLimits{4096, 20, 4096};

struct Parsed {
  bool done = false;
  lorikeet::comm::HttpRequest request;
  std::string rest;
};

Parsed parse(std::string_view bytes, size_t step) {
  RequestParser parser(kLimits);
  std::string waiting;
  while (true) {
    const auto taken = parser.put(waiting);
    if (!taken) {
      if (taken.error().message.empty() || taken.error().status < 400) std::abort();
      return {};
    }
    if (*taken > waiting.size()) std::abort();
    waiting.erase(0, *taken);
    if (parser.request().body.size() > kLimits.body_bytes || parser.request().headers.size() > kLimits.headers) {
      std::abort();
    }
    if (parser.done()) return {true, parser.request(), waiting + std::string(bytes)};
    if (*taken > 0 && !waiting.empty()) continue;
    if (bytes.empty()) return {};
    waiting += bytes.substr(0, step);
    bytes.remove_prefix(std::min(step, bytes.size()));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data + 1), size - 1);
  const Parsed whole = parse(bytes, std::max<size_t>(bytes.size(), 1));
  const Parsed cut = parse(bytes, data[0] % 64 + 1);
  if (whole.done != cut.done) std::abort();
  if (whole.request.method != cut.request.method || whole.request.target != cut.request.target ||
      whole.request.headers != cut.request.headers || whole.request.body != cut.request.body ||
      whole.rest != cut.rest) {
    std::abort();
  }
  return 0;
}
