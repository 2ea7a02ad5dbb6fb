// The cereal codec over the messages that cross processes. The first byte picks the message. Whatever decodes must
// encode to bytes that decode to the same.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "comm/client/client_messages.h"
#include "comm/client/frames.h"
#include "comm/codec/codec.h"

namespace {

template <class T>
void check(std::span<const uint8_t> bytes) {
  const lorikeet::Result<T> value = lorikeet::comm::decode<T>(bytes);
  if (!value) {
    if (value.error().message.empty()) std::abort();
    return;
  }
  const std::vector<uint8_t> encoded = lorikeet::comm::encode(*value);
  const lorikeet::Result<T> again = lorikeet::comm::decode<T>(encoded);
  if (!again || lorikeet::comm::encode(*again) != encoded) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::span<const uint8_t> bytes(data + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      check<lorikeet::comm::GenerateRequest>(bytes);
      break;
    case 1:
      check<lorikeet::comm::Delta>(bytes);
      break;
    case 2:
      check<lorikeet::comm::Done>(bytes);
      break;
    default:
      check<lorikeet::comm::Heartbeat>(bytes);
  }
  return 0;
}
