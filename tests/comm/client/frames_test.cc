#include "comm/client/frames.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <random>
#include <string>
#include <vector>

#include "tests/comm/codec/allocation_limit.h"
#include "tests/comm/codec/messages.h"

namespace lorikeet::comm {
namespace {

using ::testing::HasSubstr;

constexpr size_t kMaxBytes = 1 << 20;

std::array<std::string_view, 4> views_of(const Frames& frames) {
  return {frames.version, frames.encoding, frames.kind, frames.body};
}

class FramesTest : public ::testing::TestWithParam<Encoding> {};
INSTANTIATE_TEST_SUITE_P(Encodings, FramesTest, ::testing::Values(Encoding::cereal, Encoding::json),
                         [](const auto& parameters) { return parameters.param == Encoding::json ? "Json" : "Cereal"; });

TEST_P(FramesTest, ReturnEveryMessageOfAClient) {
  for (const ClientFrame& message : client_messages()) {
    const Frames frames = encode_frames(GetParam(), message);
    const auto decoded = decode_client_frames(views_of(frames), kMaxBytes);
    ASSERT_TRUE(decoded) << frames.kind << ": " << decoded.error().message;
    EXPECT_EQ(decoded->encoding, GetParam());
    EXPECT_TRUE(same(decoded->message, message)) << frames.kind << ": " << frames.body;
  }
}

TEST_P(FramesTest, ReturnEveryMessageOfTheServer) {
  for (const ServerFrame& message : server_messages()) {
    const Frames frames = encode_frames(GetParam(), message);
    const auto decoded = decode_server_frames(views_of(frames));
    ASSERT_TRUE(decoded) << frames.kind << ": " << decoded.error().message;
    EXPECT_TRUE(same(decoded->message, message)) << frames.kind << ": " << frames.body;
  }
}

TEST_P(FramesTest, AnswerEveryTruncatedBodyWithAnError) {
  const Frames frames = encode_frames(GetParam(), ClientFrame(full_request()));
  for (size_t size = 0; size < frames.body.size(); ++size) {
    const std::string body = frames.body.substr(0, size);
    const std::array<std::string_view, 4> views = {frames.version, frames.encoding, frames.kind, body};
    EXPECT_FALSE(decode_client_frames(views, kMaxBytes)) << size;
  }
}

TEST_P(FramesTest, AnswerRandomMutationsWithErrorsAlone) {
  std::mt19937 random(11);
  const std::vector<ClientFrame> messages = client_messages();
  int decoded = 0;
  g_largest_allocation = 0;
  for (int i = 0; i < 20'000; ++i) {
    Frames frames = encode_frames(GetParam(), messages[random() % 6]);
    for (uint32_t changes = 1 + random() % 3; changes > 0; --changes) {
      frames.body[random() % frames.body.size()] = static_cast<char>(random());
    }
    const auto result = decode_client_frames(views_of(frames), kMaxBytes);
    decoded += result ? 1 : 0;
    if (!result) {
      EXPECT_FALSE(result.error().message.empty());
      EXPECT_LT(result.error().message.size(), 400u);
    }
  }
  EXPECT_GT(decoded, 0);
  EXPECT_LT(g_largest_allocation, 1u << 20);
}

TEST(Frames, AreTheFourThatTheProtocolNames) {
  const Frames frames = encode_frames(Encoding::json, ClientFrame(Cancel{"a"}));
  EXPECT_EQ(frames.version, "lorikeet/1");
  EXPECT_EQ(frames.encoding, "json");
  EXPECT_EQ(frames.kind, "cancel");
  EXPECT_EQ(frames.body, R"({"id":"a"})");
  EXPECT_EQ(encode_frames(Encoding::cereal, ServerFrame(Done{})).encoding, "cereal");
  EXPECT_EQ(encode_frames(Encoding::json, ClientFrame(ClientHeartbeat{})).body, "");
}

Malformed malformed(const std::vector<std::string_view>& frames, size_t max_bytes = kMaxBytes) {
  const auto decoded = decode_client_frames(frames, max_bytes);
  EXPECT_FALSE(decoded);
  return decoded ? Malformed{} : decoded.error();
}

TEST(Frames, KeepTheIdOfARequestThatIsWrong) {
  EXPECT_EQ(malformed({"lorikeet/1", "json", "generate", R"({"id":"q","prompt":5})"}).id, "q");
  EXPECT_EQ(malformed({"lorikeet/1", "json", "generate", R"({"id":5,"prompt":5})"}).id, "5");
  GenerateRequest request;
  request.id = "q";
  request.stop.assign(1000, "x");
  const Frames frames = encode_frames(Encoding::cereal, ClientFrame(request));
  const auto decoded = decode_client_frames(views_of(frames), kMaxBytes);
  ASSERT_FALSE(decoded);
  EXPECT_EQ(decoded.error().id, "q");
  EXPECT_EQ(decoded.error().message, "stop has 1000 strings, more than 256");
}

TEST(Frames, KeepTheEncodingOfAMessageThatIsWrong) {
  EXPECT_EQ(malformed({}).encoding, std::nullopt);
  EXPECT_EQ(malformed({"x"}).encoding, std::nullopt);
  EXPECT_EQ(malformed({"x", "cereal"}).encoding, Encoding::cereal);
  EXPECT_EQ(malformed({"lorikeet/0", "json", "", ""}).encoding, Encoding::json);
  EXPECT_EQ(malformed({"lorikeet/1", "yaml", "", ""}).encoding, std::nullopt);
}

TEST(Frames, RefuseTheKindsOfTheOtherSide) {
  EXPECT_EQ(malformed({"lorikeet/1", "json", "delta", "{}"}).message, "unknown kind \"delta\"");
  const std::array<std::string_view, 4> generate = {"lorikeet/1", "json", "generate", R"({"id":"a"})"};
  EXPECT_FALSE(decode_server_frames(generate));
}

TEST(Frames, RefuseABodyPastTheLimit) {
  EXPECT_THAT(malformed({"lorikeet/1", "json", "cancel", R"({"id":"a"})"}, 9).message,
              HasSubstr("a body of 10 bytes where 9 are allowed"));
}

}  // namespace
}  // namespace lorikeet::comm
