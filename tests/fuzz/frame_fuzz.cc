// The frames of the client protocol, of both sides. In the input a frame ends at the bytes 0xFF 0x00; what decodes must
// encode to frames that decode again.
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "comm/client/frames.h"

namespace {

constexpr size_t kMaxBytes = 1 << 20;

std::vector<std::string_view> split(std::string_view input) {
  constexpr std::string_view kEnd("\xFF\0", 2);
  std::vector<std::string_view> frames;
  while (true) {
    const size_t end = input.find(kEnd);
    frames.push_back(input.substr(0, end));
    if (end == std::string_view::npos) return frames;
    input.remove_prefix(end + kEnd.size());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using lorikeet::comm::Frames;
  const auto frames = split({reinterpret_cast<const char*>(data), size});
  if (const auto decoded = lorikeet::comm::decode_client_frames(frames, kMaxBytes)) {
    const Frames again = encode_frames(decoded->encoding, decoded->message);
    const std::vector<std::string_view> views = {again.version, again.encoding, again.kind, again.body};
    if (!lorikeet::comm::decode_client_frames(views, 4 * kMaxBytes)) std::abort();
  } else if (decoded.error().message.empty()) {
    std::abort();
  }
  if (const auto decoded = lorikeet::comm::decode_server_frames(frames)) {
    encode_frames(decoded->encoding, decoded->message);
  }
  return 0;
}
