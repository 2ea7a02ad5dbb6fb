#include "actors/head/asked_request.h"

#include <fmt/format.h>

#include "comm/client/limits.h"
#include "engine/engine.h"

namespace lorikeet::actors {

AskedRequest asked_for(const comm::GenerateRequest& request, const Grant& grant,
                       std::chrono::milliseconds server_timeout, AskedRequest::TimePoint now) {
  AskedRequest asked;
  asked.name = request.id;
  asked.tenant = grant.tenant;
  asked.logprobs = request.logprobs.has_value();
  asked.prompt_top_logprobs = request.prompt_top_logprobs.has_value();
  asked.prompt_logprobs = request.prompt_logprobs || asked.prompt_top_logprobs;
  asked.prompt_token_ids = request.return_token_ids;
  asked.early_prompt_logprobs = request.early_prompt_logprobs && asked.prompt_logprobs;
  asked.n = request.n.value_or(1);
  const std::chrono::duration<double> of_server = server_timeout;
  // Wrong ones are refused when the request is checked.
  if (request.timeout && *request.timeout > 0 && *request.timeout <= comm::kMaxTimeoutSeconds &&
      (of_server.count() <= 0 || *request.timeout < of_server.count())) {
    const std::chrono::duration<double> own(*request.timeout);
    asked.deadline = now + std::chrono::duration_cast<AskedRequest::TimePoint::duration>(own);
    asked.time_limit = fmt::format("{:.3g} s (timeout)", own.count());
  } else if (of_server.count() > 0) {
    asked.deadline = now + server_timeout;
    asked.time_limit = fmt::format("{:.3g} s (--request-timeout)", of_server.count());
  }
  return asked;
}

size_t bytes_of(const comm::GenerateRequest& request) {
  size_t bytes = request.prompt ? request.prompt->size() : 0;
  if (request.prompt_token_ids) bytes += request.prompt_token_ids->size() * sizeof(int32_t);
  for (const std::string& stop : request.stop) bytes += stop.size();
  for (const std::string& word : request.bad_words) bytes += word.size();
  bytes += request.logit_bias.size() * sizeof(engine::LogitBias);
  if (request.allowed_token_ids) bytes += request.allowed_token_ids->size() * sizeof(int32_t);
  if (request.messages) bytes += request.messages->size() * sizeof(comm::Message);
  if (request.messages && request.messages->size() > kCountedMessages) return bytes + comm::kMaxBodyBytes;
  return bytes + comm::chat_bytes(request);
}

}  // namespace lorikeet::actors
