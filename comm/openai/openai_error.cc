#include "comm/openai/openai_error.h"

#include <nlohmann/json.hpp>

#include "comm/openai/json_text.h"

namespace lorikeet::comm {
namespace {

struct Mapped {
  std::string_view gateway;
  int status;
  std::string_view code;
};
constexpr Mapped kFailures[] = {
    {"malformed", 400, "malformed"},
    {"invalid_request", 400, "invalid_request"},
    {"too_long", 400, "context_length_exceeded"},
    {"unknown_adapter", 404, "model_not_found"},
    {"adapter_failed", 422, "adapter_failed"},
    {"adapter_not_found", 404, "adapter_not_found"},
    {"conflict", 409, "conflict"},
    {"poison", 422, "poison"},  // not to be sent again
    {"timed_out", 408, "request_timeout"},
    {"queue_full", 429, "queue_full"},
    {"rate_limited", 429, "rate_limit_exceeded"},
    {"forbidden", 403, "forbidden"},
    {"rank_lost", 503, "rank_lost"},
    {"shutting_down", 503, "shutting_down"},
};

struct Named {
  int status;
  std::string_view code;
};
constexpr Named kStatuses[] = {
    {400, "bad_request"},       {401, "invalid_api_key"},    {403, "forbidden"},
    {404, "not_found"},         {405, "method_not_allowed"}, {408, "request_timeout"},
    {409, "conflict"},          {413, "body_too_large"},     {415, "unsupported_media_type"},
    {429, "too_many_requests"}, {431, "head_too_large"},     {503, "unavailable"},
};

std::string_view type_of(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 429:
      return "rate_limit_error";
    default:
      return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

nlohmann::ordered_json to_object(const OpenAiError& error) {
  return {{"error",
           {{"message", error.message},
            {"type", type_of(error.status)},
            {"param", error.param ? nlohmann::ordered_json(*error.param) : nlohmann::ordered_json()},
            {"code", error.code}}}};
}

}  // namespace

OpenAiError error_of(const Failure& failure) {
  for (const Mapped& mapped : kFailures) {
    if (mapped.gateway == failure.code) {
      const bool model = mapped.gateway == "unknown_adapter";
      return {mapped.status, failure.message, model ? std::optional<std::string>("model") : failure.field,
              std::string(mapped.code), failure.retry_after_s.value_or(0)};
    }
  }
  return {500, failure.message, std::nullopt, failure.code};
}

OpenAiError error_of(int status, std::string_view sentence) {
  std::string_view code = status >= 500 ? "internal" : "bad_request";
  for (const Named& named : kStatuses) {
    if (named.status == status) code = named.code;
  }
  return {status, std::string(sentence), std::nullopt, std::string(code)};
}

std::string to_body(const OpenAiError& error) {
  return to_text(to_object(error));
}

std::string to_event(const OpenAiError& error) {
  return "data: " + to_text(to_object(error)) + "\n\n";
}

}  // namespace lorikeet::comm
