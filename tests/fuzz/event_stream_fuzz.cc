// The events of a server that somebody else runs. However the bytes are cut, the same events come out of them.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "launcher/event_stream.h"
#include "tests/fuzz/fuzz_input.h"

namespace {

std::vector<std::string> events(std::string_view bytes, size_t step) {
  lorikeet::launcher::EventStream stream;
  std::vector<std::string> found;
  for (; !bytes.empty(); bytes.remove_prefix(std::min(step, bytes.size()))) {
    stream.add(bytes.substr(0, step));
    while (auto event = stream.next()) found.push_back(*std::move(event));
  }
  return found;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data + 1), size - 1);
  lorikeet::fuzz::require(events(bytes, size) == events(bytes, data[0] % 32 + 1));
  return 0;
}
