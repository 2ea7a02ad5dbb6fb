#include "comm/zmq_server.h"

#include <gtest/gtest.h>

#include "comm/zmq_client.h"

namespace lorikeet::comm {
namespace {

using namespace std::chrono_literals;

class ZmqServerTest : public ::testing::TestWithParam<Encoding> {};

TEST_P(ZmqServerTest, StreamsTheAnswerToARequest) {
  std::unique_ptr<ZmqServer> server;
  ZmqServerOptions options;
  options.address = "tcp://127.0.0.1:*";
  ZmqServerCallbacks callbacks;
  callbacks.on_message = [&](ClientId client, ClientMessage message) {
    const auto& request = std::get<GenerateRequest>(message);
    for (int32_t token : *request.prompt_token_ids) server->send(client, Delta{request.id, "x", {token}, {}});
    server->send(client, Done{request.id, "stop", std::nullopt, {}, 7, {}});
  };
  auto started = ZmqServer::start(options, callbacks);
  ASSERT_TRUE(started) << started.error().message;
  server = *std::move(started);
  auto client = ZmqClient::connect(server->address(), GetParam());
  ASSERT_TRUE(client);
  GenerateRequest request;
  request.id = "a";
  request.prompt_token_ids = {5, 6, 7};
  ASSERT_TRUE((*client)->send(request));
  for (int32_t token : {5, 6, 7}) {
    auto answer = (*client)->receive(30s);
    ASSERT_TRUE(answer);
    EXPECT_EQ(std::get<Delta>(*answer).token_ids, std::vector<int32_t>{token});
  }
  auto answer = (*client)->receive(30s);
  ASSERT_TRUE(answer);
  EXPECT_EQ(std::get<Done>(*answer).seed, 7u);
}

INSTANTIATE_TEST_SUITE_P(Encodings, ZmqServerTest, ::testing::Values(Encoding::cereal, Encoding::json));

}  // namespace
}  // namespace lorikeet::comm
