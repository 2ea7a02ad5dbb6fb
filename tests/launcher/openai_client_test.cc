#include "launcher/openai_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "launcher/event_stream.h"

namespace lorikeet::launcher {
namespace {

using nlohmann::json;
using testing::HasSubstr;

TEST(EventStream, GivesEventsWhereverTheBytesAreCut) {
  const std::string bytes = ": a comment\n\ndata: {\"a\":1}\r\n\r\nevent: x\ndata:two\ndata: lines\n\ndata: [DONE]\n\n";
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    EventStream events;
    std::vector<std::string> seen;
    for (const std::string& piece : {bytes.substr(0, cut), bytes.substr(cut)}) {
      events.add(piece);
      while (auto data = events.next()) seen.push_back(*data);
    }
    EXPECT_THAT(seen, testing::ElementsAre("{\"a\":1}", "two\nlines", "[DONE]")) << cut;
  }
}

TEST(OpenAiClient, AsksForWhatTheRequestHolds) {
  comm::GenerateRequest request;
  request.prompt_token_ids = {{1, 2, 3}};
  request.max_tokens = 4;
  request.temperature = 0;
  request.ignore_eos = true;
  const OpenAiCall call = openai_call(request, "base");
  EXPECT_EQ(call.path, "/v1/completions");
  const json body = json::parse(call.body);
  EXPECT_EQ(body["model"], "base");
  EXPECT_EQ(body["prompt"], (json{1, 2, 3}));
  EXPECT_EQ(body["max_tokens"], 4);
  EXPECT_EQ(body["ignore_eos"], true);
  EXPECT_EQ(body["stream_options"]["include_usage"], true);
  EXPECT_FALSE(body.contains("top_p"));
  comm::GenerateRequest chat;
  chat.messages = {{{"user", "Hello"}}};
  chat.adapter = "kjv";
  EXPECT_EQ(openai_call(chat, "base").path, "/v1/chat/completions");
  EXPECT_EQ(json::parse(openai_call(chat, "base").body)["model"], "kjv");
}

TEST(OpenAiClient, ReadsThePiecesOfAnAnswer) {
  OpenAiChunk chunk = read_openai_chunk(R"({"choices": [{"index": 0, "text": " was", "finish_reason": null}]})");
  EXPECT_EQ(chunk.text, " was");
  EXPECT_TRUE(chunk.counts);
  chunk = read_openai_chunk(R"({"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": null}]})");
  EXPECT_FALSE(chunk.counts) << "it is of no token";
  chunk = read_openai_chunk(R"({"choices": [{"delta": {"content": "Hi"}, "finish_reason": null}]})");
  EXPECT_EQ(chunk.text, "Hi");
  chunk = read_openai_chunk(R"({"choices": [{"text": "", "finish_reason": null}]})");
  EXPECT_TRUE(chunk.counts) << "a token whose text waits for its end";
  chunk = read_openai_chunk(R"({"choices": [{"text": "", "finish_reason": "length"}]})");
  EXPECT_FALSE(chunk.counts);
  EXPECT_EQ(chunk.finish_reason, "length");
  chunk = read_openai_chunk(R"({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}})");
  ASSERT_TRUE(chunk.has_usage);
  EXPECT_EQ(chunk.usage.completion_tokens, 5);
}

TEST(OpenAiClient, BelievesNoServer) {
  EXPECT_THAT(read_openai_chunk("{").error, HasSubstr("no JSON object"));
  EXPECT_EQ(read_openai_chunk(R"({"error": {"message": "out of memory"}})").error, "out of memory");
  for (const char* odd : {R"({"choices": 1})", R"({"choices": [1]})", R"({"choices": [{"text": 5}], "usage": 7})"}) {
    EXPECT_EQ(read_openai_chunk(odd).error, "") << odd;
  }
}

TEST(OpenAiClient, SaysWhatIsWrongWithAnAddress) {
  const auto error = [](const char* url) { return OpenAiClient::connect({url, "", ""}).error().message; };
  EXPECT_THAT(error("https://127.0.0.1:1"), HasSubstr("https://127.0.0.1:1: it cannot be reached: "));
  EXPECT_THAT(error("ftp://localhost"), HasSubstr("give http://HOST:PORT or https://HOST:PORT"));
  EXPECT_THAT(error("localhost:8000"), HasSubstr("give http://HOST:PORT"));
  EXPECT_THAT(error("http://127.0.0.1:1"), HasSubstr("http://127.0.0.1:1: it cannot be reached: "));
  EXPECT_THAT(error("http://:80"), HasSubstr("give http://HOST:PORT"));
}

}  // namespace
}  // namespace lorikeet::launcher
