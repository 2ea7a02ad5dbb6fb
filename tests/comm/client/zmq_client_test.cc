#include "comm/client/zmq_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <thread>

#include "comm/client/zmq_server.h"
#include "tests/comm/client/raw_peer.h"

namespace lorikeet::comm {
namespace {

using namespace std::chrono_literals;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr auto kLong = 30s;

// A server by hand: what it sends is up to the test.
class ZmqClientTest : public ::testing::Test {
 protected:
  ZmqClientTest() : server_(zmq::socket_type::router, "tcp://127.0.0.1:*") {
    auto connected = ZmqClient::connect(server_.address(), Encoding::json);
    EXPECT_TRUE(connected) << connected.error().message;
    client_ = *std::move(connected);
    routing_id_ = hello();
  }

  // Takes a new connection's first heartbeat; its routing id.
  std::string hello() {
    const auto frames = server_.receive();
    EXPECT_TRUE(frames);
    EXPECT_EQ((*frames)[3], "heartbeat");
    EXPECT_EQ((*frames)[4], "");
    return (*frames)[0];
  }

  void send(const std::string& kind, const std::string& body) {
    server_.send({routing_id_, "lorikeet/1", "json", kind, body});
  }

  void greet(const std::string& session, int interval_ms) {
    send("heartbeat", fmt::format(R"({{"session":"{}","interval_ms":{}}})", session, interval_ms));
  }

  // Greets the client's next connection and returns the first message of this kind that comes over it.
  RawPeer::Frames next_of_new_connection(const std::string& kind, std::string old_routing_id) {
    while (true) {
      const auto frames = server_.receive();
      if (!frames) {
        ADD_FAILURE() << "nothing came";
        return {};
      }
      if ((*frames)[0] == old_routing_id) continue;
      if ((*frames)[3] == kind) return *frames;
      routing_id_ = (*frames)[0];
      greet("new", 1000);
      EXPECT_FALSE(client_->receive(100ms));
    }
  }

  Failure expect_failure() {
    const auto message = client_->receive(kLong);
    if (!message.has_value()) {
      ADD_FAILURE() << "no answer";
      return {};
    }
    const auto* failure = std::get_if<Failure>(&message.value());
    EXPECT_NE(failure, nullptr);
    return failure == nullptr ? Failure{} : *failure;
  }

  RawPeer server_;
  std::unique_ptr<ZmqClient> client_;
  std::string routing_id_;
};

TEST_F(ZmqClientTest, SendsItsRequestsInFourFramesOnceItKnowsTheSession) {
  ASSERT_TRUE(client_->send(Cancel{"a"}));
  greet("s", 1000);
  EXPECT_FALSE(client_->receive(100ms));
  const auto frames = server_.receive();
  ASSERT_TRUE(frames);
  EXPECT_EQ(*frames, (RawPeer::Frames{routing_id_, "lorikeet/1", "json", "cancel", R"({"id":"a"})"}));
}

TEST_F(ZmqClientTest, SaysThatTheServerAsksForNoSuchKey) {
  EXPECT_EQ(client_->handshake(), Handshake::none);
  auto with_key = ZmqClient::connect(server_.address(), Encoding::json, {"", "", "", "acme", "secret"}).value();
  EXPECT_FALSE(with_key->await_greeting(1ms));
  const auto deadline = std::chrono::steady_clock::now() + kLong;
  while (with_key->handshake() == Handshake::none && std::chrono::steady_clock::now() < deadline) {
    EXPECT_FALSE(with_key->receive(5ms));
  }
  EXPECT_THAT(with_key->handshake(), AnyOf(Handshake::mechanism, Handshake::cut)) << "whoever finds it first hangs up";
}

TEST_F(ZmqClientTest, KnowsNothingOfTheHandshakeWhereNobodyListens) {
  auto alone = ZmqClient::connect("ipc:///nowhere/zmq", Encoding::json).value();
  EXPECT_FALSE(alone->await_greeting(100ms));
  EXPECT_EQ(alone->handshake(), Handshake::none);
}

TEST_F(ZmqClientTest, GivesNothingWhenNothingComesInTime) {
  EXPECT_FALSE(client_->receive(1ms));
}

TEST_F(ZmqClientTest, SendsHeartbeatsWhileItWaits) {
  greet("s", 10);
  greet("s", 10);
  // It waits without answers, yet speaks; each of its heartbeats is answered so that it does not take the server for
  // lost.
  std::thread waiter([this] { EXPECT_TRUE(client_->receive(kLong)); });
  for (int i = 0; i < 5; ++i) {
    const auto frames = server_.receive();
    ASSERT_TRUE(frames);
    EXPECT_EQ((*frames)[3], "heartbeat");
    routing_id_ = (*frames)[0];
    greet("s", 10);
  }
  send("done", R"({"id":"a","finish_reason":"stop","stop_reason":null,"prompt_logprobs":[],"seed":1,
                   "usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2,"cached_tokens":0}})");
  waiter.join();
}

TEST_F(ZmqClientTest, SaysOnceThatASilentServerIsLost) {
  greet("s", 20);
  const Failure failure = expect_failure();
  EXPECT_EQ(failure.code, "server_lost");
  EXPECT_EQ(failure.id, "");
  EXPECT_THAT(failure.message, HasSubstr("is silent"));
  EXPECT_FALSE(client_->receive(300ms)) << "said twice";  // three times the silence that counts
}

TEST_F(ZmqClientTest, ForgetsWhatItSentToALostServer) {
  ASSERT_TRUE(client_->send(Cancel{"before"}));
  greet("s", 20);
  EXPECT_EQ(expect_failure().code, "server_lost");
  ASSERT_TRUE(client_->send(Cancel{"after"}));
  // The old connection may have delivered what was before; the new one brings only what is new.
  const std::string old_routing_id = routing_id_;
  const RawPeer::Frames cancel = next_of_new_connection("cancel", old_routing_id);
  ASSERT_EQ(cancel.size(), 5u);
  EXPECT_EQ(cancel[4], R"({"id":"after"})");
}

TEST_F(ZmqClientTest, TakesAnotherSessionForALostServer) {
  greet("first", 1000);
  greet("second", 1000);
  EXPECT_EQ(expect_failure().code, "server_lost");
  // It has connected anew and goes on with whatever session it is given.
  ASSERT_TRUE(client_->send(Cancel{"x"}));
  ASSERT_EQ(next_of_new_connection("cancel", routing_id_).size(), 5u);
  send("delta", R"({"id":"a","text":"hello","token_ids":[1],"logprobs":[]})");
  const auto message = client_->receive(kLong);
  ASSERT_TRUE(message);
  EXPECT_EQ(std::get<Delta>(*message).text, "hello");
}

TEST_F(ZmqClientTest, SaysWhenTheServersMessageCannotBeRead) {
  greet("s", 1000);
  send("delta", R"({"id":"a","text":5})");
  const Failure failure = expect_failure();
  EXPECT_EQ(failure.code, "malformed");
  EXPECT_EQ(failure.id, "a");
  EXPECT_EQ(failure.message, "the server sent a message that cannot be read: text must be a string, not a number");
  server_.send({routing_id_, "rubbish"});
  EXPECT_EQ(expect_failure().code, "malformed");
}

TEST_F(ZmqClientTest, EndsAndBeginsWithTheRealServersRestart) {
  ZmqServerOptions options;
  options.address = "tcp://127.0.0.1:*";
  options.heartbeat_ms = 1000;  // a machine under load is silent for a while
  ZmqServerCallbacks callbacks;
  std::atomic<bool> seen{false};
  callbacks.on_message = [&](ClientId, ClientMessage) { seen = true; };
  auto first = ZmqServer::start(options, callbacks);
  ASSERT_TRUE(first);
  options.address = (*first)->address();
  auto connected = ZmqClient::connect(options.address, Encoding::cereal);
  ASSERT_TRUE(connected);
  client_ = *std::move(connected);
  ASSERT_TRUE(client_->send(StatusRequest{"s"}));
  while (!seen) EXPECT_FALSE(client_->receive(10ms));
  GenerateRequest request;
  request.id = "a";
  request.prompt = "p";
  ASSERT_TRUE(client_->send(request));
  first->reset();
  // The next one answers at once; it never saw the request.
  std::promise<ZmqServer*> started;
  callbacks.on_message = [second = started.get_future().share()](ClientId client, ClientMessage message) {
    second.get()->send(client, Failure{std::get<GenerateRequest>(message).id, "internal", "seen by the second"});
  };
  const auto restarted = ZmqServer::start(options, callbacks);
  ASSERT_TRUE(restarted) << restarted.error().message;
  started.set_value(restarted->get());
  EXPECT_EQ(expect_failure().code, "server_lost");
  ASSERT_TRUE(client_->send(request));
  EXPECT_EQ(expect_failure().message, "seen by the second");
}

TEST(ZmqClient, SaysWhatIsWrongWithAnAddress) {
  for (const char* address : {"", "rubbish", "xyz://host:1", "tcp://127.0.0.1"}) {
    const auto client = ZmqClient::connect(address);
    ASSERT_FALSE(client);
    EXPECT_THAT(client.error().message, HasSubstr(fmt::format("cannot connect to {}: ", address)));
  }
}

}  // namespace
}  // namespace lorikeet::comm
