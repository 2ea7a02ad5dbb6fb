// A line of `lorikeet batch`. What parses must be written as a line that parses to the same. Values that are handed on as
// they were written (JsonText) are the same values then: their escapes, spaces and order of keys are the first line's alone.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "comm/client/request_json.h"
#include "comm/codec/codec.h"
#include "comm/codec/json_codec.h"

namespace {

bool hands_on(const lorikeet::comm::GenerateRequest& request) {
  if (request.messages) {
    for (const auto& message : *request.messages) {
      if (!message.more.text.empty() || !message.tool_calls.empty()) return true;
    }
  }
  return !request.tools.empty() || !request.documents.empty() || request.chat_template_kwargs || request.tool_choice ||
         request.response_format || request.structured_outputs;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto request = lorikeet::comm::parse_request(text);
  lorikeet::comm::find_id(text);
  if (!request) {
    if (request.error().message.empty()) std::abort();
    return 0;
  }
  const std::string line = lorikeet::comm::to_json(request->request);
  const auto again = lorikeet::comm::parse_request(line);
  if (!again || lorikeet::comm::to_json(again->request) != line) std::abort();
  if (!hands_on(request->request) &&
      lorikeet::comm::encode(again->request) != lorikeet::comm::encode(request->request)) {
    std::abort();
  }
  return 0;
}
