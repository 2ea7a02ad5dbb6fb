// A body of OpenAI's API. What is taken stays within its limits and gets an answer that is JSON; what is not gets a
// sentence.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "comm/client/adapter_request.h"
#include "comm/openai/adapters.h"
#include "comm/openai/openai_answer.h"
#include "comm/openai/openai_request.h"
#include "comm/openai/tokenize.h"

namespace {

using namespace lorikeet::comm;

void check_events(std::string_view events) {
  while (!events.empty()) {
    const size_t end = events.find("\n\n");
    if (end == std::string_view::npos || events.substr(0, 6) != "data: ") std::abort();
    const std::string_view data = events.substr(6, end - 6);
    if (data != "[DONE]" && !nlohmann::json::accept(data)) std::abort();
    events.remove_prefix(end + 2);
  }
}

void answer(const OpenAiRequest& request) {
  if (request.prompts.empty() || request.n < 1 || request.choices() > 1024) std::abort();
  OpenAiAnswer answer(request,
                      {"id", request.model.value_or("m"), 0, [](int32_t) { return std::string_view("\xC3"); }, {}});
  std::string events;
  for (size_t i = 0; i < request.choices(); ++i) {
    const GenerateRequest choice = request.choice(i);
    Delta delta{choice.id, "te\xFFxt", {1}, {}};
    if (choice.logprobs) delta.logprobs.push_back({{1, -1.0F}, {2, -2.0F}});
    events += answer.add(delta);
    Done done;
    done.id = choice.id;
    done.finish_reason = "stop";
    events += answer.finish(done);
  }
  if (!answer.ended()) std::abort();
  if (request.stream) {
    check_events(events);
  } else if (!nlohmann::json::accept(answer.body())) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data + 1), size - 1);
  (void)parse_tokenize(body);
  (void)parse_detokenize(body);
  for (const auto& change : {parse_load_adapter(body), parse_unload_adapter(body)}) {
    if (change ? !check_sizes(*change) : change.error().message.empty()) std::abort();
  }
  const auto request = data[0] % 2 == 0 ? parse_completion(body) : parse_chat(body);
  if (request) {
    answer(*request);
  } else if (request.error().message.empty() || !nlohmann::json::accept(to_body(request.error()))) {
    std::abort();
  }
  return 0;
}
