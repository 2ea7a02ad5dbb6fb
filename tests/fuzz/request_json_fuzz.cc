// A line of `lorikeet batch`. What parses must be written as a line that parses to the same.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "comm/client/request_json.h"
#include "comm/codec/codec.h"
#include "comm/codec/json_codec.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto request = lorikeet::comm::parse_request(text);
  lorikeet::comm::find_id(text);
  if (!request) {
    if (request.error().message.empty()) std::abort();
    return 0;
  }
  const auto again = lorikeet::comm::parse_request(lorikeet::comm::to_json(request->request));
  if (!again || lorikeet::comm::encode(again->request) != lorikeet::comm::encode(request->request)) std::abort();
  return 0;
}
