#include "comm/openai/openai_error.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace lorikeet::comm {
namespace {

using nlohmann::json;

TEST(OpenAiError, HasTheStatusThatBelongsToTheGatewaysCode) {
  const std::pair<const char*, int> cases[] = {
      {"malformed", 400},      {"invalid_request", 400}, {"too_long", 400},  {"unknown_adapter", 404},
      {"adapter_failed", 422}, {"queue_full", 429},      {"rank_lost", 503}, {"shutting_down", 503},
      {"timed_out", 408},      {"internal", 500},        {"news", 500},      {"poison", 422}};
  for (const auto& [code, status] : cases) EXPECT_EQ(error_of(Failure{"0", code, "why"}).status, status) << code;
}

TEST(OpenAiError, IsWrittenAsOpenAisClientsReadIt) {
  EXPECT_EQ(json::parse(to_body(error_of(Failure{"0", "unknown_adapter", "there is no adapter \"x\""}))),
            json::parse(R"({"error": {"message": "there is no adapter \"x\"", "type": "invalid_request_error",
                                      "param": "model", "code": "model_not_found"}})"));
  EXPECT_EQ(json::parse(to_body(error_of(401, "a key is needed"))),
            json::parse(R"({"error": {"message": "a key is needed", "type": "authentication_error", "param": null,
                                      "code": "invalid_api_key"}})"));
  EXPECT_EQ(error_of(Failure{"0", "too_long", ""}).code, "context_length_exceeded");
  Failure wrong{"0", "invalid_request", "top_p is 0"};
  EXPECT_EQ(error_of(wrong).param, std::nullopt);
  wrong.field = "top_p";
  EXPECT_EQ(error_of(wrong).param, "top_p");
}

TEST(OpenAiError, IsAnEventOfAStreamThatHasBegun) {
  const std::string event = to_event(error_of(503, "not \xFF UTF-8"));
  EXPECT_EQ(event.substr(0, 6), "data: ");
  EXPECT_EQ(event.substr(event.size() - 2), "\n\n");
  EXPECT_EQ(json::parse(event.substr(6))["error"]["type"], "server_error");
}

}  // namespace
}  // namespace lorikeet::comm
