#include "comm/client/zmq_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "comm/client/frames.h"
#include "comm/client/zmq_client.h"
#include "comm/codec/codec.h"
#include "tests/comm/client/raw_peer.h"
#include "tests/comm/collective/file_rendezvous.h"

namespace lorikeet::comm {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr auto kLong = 30s;  // for what must happen, however busy the machine

// A server that notes what it is told, and streams each request's own tokens back to it.
class EchoServer {
 public:
  explicit EchoServer(ZmqServerOptions options = {}) {
    if (options.address == ZmqServerOptions{}.address) options.address = "tcp://127.0.0.1:*";
    ZmqServerCallbacks callbacks;
    callbacks.on_message = [this](ClientId client, ClientMessage message) { handle(client, std::move(message)); };
    callbacks.on_gone = [this](ClientId client) {
      const std::lock_guard lock(mutex_);
      gone_.push_back(client);
      changed_.notify_all();
    };
    auto started = ZmqServer::start(options, std::move(callbacks));
    EXPECT_TRUE(started) << started.error().message;
    const std::lock_guard lock(mutex_);
    server_ = *std::move(started);
    changed_.notify_all();
  }

  std::string address() const { return server_->address(); }
  ZmqServer& server() { return *server_; }
  void stop() { server_.reset(); }

  // The client of the request with this id, once it has come.
  ClientId client_of(const std::string& id) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kLong, [&] { return clients_.count(id) > 0; })) << id;
    return clients_[id];
  }

  bool wait_until_gone(ClientId client) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kLong, [&] { return std::find(gone_.begin(), gone_.end(), client) != gone_.end(); });
  }

  std::vector<ClientId> gone() {
    const std::lock_guard lock(mutex_);
    return gone_;
  }

 private:
  void handle(ClientId client, ClientMessage message) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return server_ != nullptr; });
    if (auto* request = std::get_if<GenerateRequest>(&message)) {
      clients_[request->id] = client;
      changed_.notify_all();
      if (!request->prompt_token_ids.has_value()) return;  // left without an answer
      for (const int32_t token : request->prompt_token_ids.value()) {
        server_->send(client, Delta{request->id, fmt::format("t{}", token), {token}, {}});
      }
      server_->send(client, Done{request->id, "stop", std::nullopt, {}, 7, {}});
    } else if (auto* cancel = std::get_if<Cancel>(&message)) {
      server_->send(client, Done{cancel->id, "abort", std::nullopt, {}, 0, {}});
    } else if (auto* status = std::get_if<StatusRequest>(&message)) {
      server_->send(client, StatusReply{status->id, R"({"ranks":2})"});
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, ClientId> clients_;
  std::vector<ClientId> gone_;
  std::unique_ptr<ZmqServer> server_;
};

ZmqServerOptions with_heartbeat(int milliseconds) {
  ZmqServerOptions options;
  options.heartbeat_ms = milliseconds;
  return options;
}

GenerateRequest request_of(const std::string& id, std::vector<int32_t> tokens) {
  GenerateRequest request;
  request.id = id;
  request.prompt_token_ids = std::move(tokens);
  return request;
}

GenerateRequest endless_request(const std::string& id) {
  GenerateRequest request;
  request.id = id;
  request.prompt = "never answered";
  return request;
}

std::unique_ptr<ZmqClient> connect_to(EchoServer& server, Encoding encoding = Encoding::cereal) {
  auto client = ZmqClient::connect(server.address(), encoding);
  EXPECT_TRUE(client) << client.error().message;
  return *std::move(client);
}

// The next answer, which must be of this type.
template <class Message>
Message expect(ZmqClient& client) {
  std::optional<ServerMessage> message = client.receive(kLong);
  if (!message.has_value()) {
    ADD_FAILURE() << "no answer";
    return {};
  }
  if (auto* expected = std::get_if<Message>(&message.value())) return *expected;
  ADD_FAILURE() << "an answer of another kind, " << message->index();
  if (auto* failure = std::get_if<Failure>(&message.value())) ADD_FAILURE() << failure->message;
  return {};
}

class ZmqServerEncodingTest : public ::testing::TestWithParam<Encoding> {};
INSTANTIATE_TEST_SUITE_P(Encodings, ZmqServerEncodingTest, ::testing::Values(Encoding::cereal, Encoding::json),
                         [](const auto& parameters) { return parameters.param == Encoding::json ? "Json" : "Cereal"; });

TEST_P(ZmqServerEncodingTest, StreamsTheAnswerToARequest) {
  EchoServer server;
  const auto client = connect_to(server, GetParam());
  ASSERT_TRUE(client->send(request_of("a", {5, 6, 7})));
  for (const int32_t token : {5, 6, 7}) {
    const auto delta = expect<Delta>(*client);
    EXPECT_EQ(delta.id, "a");
    EXPECT_EQ(delta.token_ids, std::vector<int32_t>{token});
  }
  const auto done = expect<Done>(*client);
  EXPECT_EQ(done.id, "a");
  EXPECT_EQ(done.seed, 7u);
}

TEST_P(ZmqServerEncodingTest, PassesCancellationsAndStatusRequests) {
  EchoServer server;
  const auto client = connect_to(server, GetParam());
  ASSERT_TRUE(client->send(endless_request("a")));
  ASSERT_TRUE(client->send(Cancel{"a"}));
  EXPECT_EQ(expect<Done>(*client).finish_reason, "abort");
  ASSERT_TRUE(client->send(StatusRequest{"s"}));
  EXPECT_EQ(expect<StatusReply>(*client).json, R"({"ranks":2})");
}

TEST_P(ZmqServerEncodingTest, ServesTheRequestsOfOneClientInTheirOrder) {
  EchoServer server;
  const auto client = connect_to(server, GetParam());
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(client->send(request_of(std::to_string(i), {i})));
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(expect<Delta>(*client).token_ids, std::vector<int32_t>{i});
    EXPECT_EQ(expect<Done>(*client).id, std::to_string(i));
  }
}

TEST(ZmqServer, GreetsANewClientWithItsSessionAndTheHeartbeat) {
  EchoServer server(with_heartbeat(1234));
  RawPeer client(zmq::socket_type::dealer, server.address());
  client.send({"lorikeet/1", "json", "heartbeat", ""});
  const auto greeting = client.receive();
  ASSERT_TRUE(greeting);
  ASSERT_EQ(greeting->size(), 4u);
  EXPECT_EQ((*greeting)[2], "heartbeat");
  EXPECT_THAT((*greeting)[3], HasSubstr(R"("interval_ms":1234)"));
  EXPECT_THAT((*greeting)[3], HasSubstr(R"("session":")"));
}

TEST(ZmqServer, AnswersInTheEncodingOfTheClientsLastMessage) {
  EchoServer server;
  RawPeer client(zmq::socket_type::dealer, server.address());
  client.send({"lorikeet/1", "json", "status", R"({"id":"1"})"});
  EXPECT_EQ((*client.receive_message())[1], "json");
  const std::vector<uint8_t> body = encode(StatusRequest{"2"});
  client.send({"lorikeet/1", "cereal", "status", {body.begin(), body.end()}});
  EXPECT_EQ((*client.receive_message())[1], "cereal");
}

struct MalformedCase {
  const char* name;
  RawPeer::Frames frames;
  std::string id, sentence;
};

std::ostream& operator<<(std::ostream& out, const MalformedCase& malformed) {
  return out << malformed.name;
}

class MalformedTest : public ::testing::TestWithParam<MalformedCase> {};

TEST_P(MalformedTest, IsAnsweredWithASentenceAndTheClientIsServedOn) {
  ZmqServerOptions options;
  options.max_message_bytes = 1000;
  EchoServer server(options);
  RawPeer client(zmq::socket_type::dealer, server.address());
  client.send(GetParam().frames);
  const auto answer = client.receive_message();
  ASSERT_TRUE(answer);
  ASSERT_EQ(answer->size(), 4u);
  EXPECT_EQ((*answer)[2], "failure");
  Failure failure;
  if ((*answer)[1] == "json") {
    EXPECT_THAT((*answer)[3], HasSubstr(R"("code":"malformed")"));
    EXPECT_THAT((*answer)[3], HasSubstr(fmt::format(R"("id":"{}")", GetParam().id)));
    EXPECT_THAT((*answer)[3], HasSubstr(GetParam().sentence));
  } else {
    const std::string& body = (*answer)[3];
    const auto decoded = decode<Failure>({reinterpret_cast<const uint8_t*>(body.data()), body.size()});
    ASSERT_TRUE(decoded);
    EXPECT_EQ(decoded->code, "malformed");
    EXPECT_THAT(decoded->message, HasSubstr(GetParam().sentence));
  }
  client.send({"lorikeet/1", "json", "status", R"({"id":"after"})"});
  EXPECT_THAT((*client.receive_message())[3], HasSubstr("after"));
  EXPECT_TRUE(server.gone().empty());
}

INSTANTIATE_TEST_SUITE_P(
    Messages, MalformedTest,
    ::testing::Values(
        MalformedCase{"OneFrame", {"hello"}, "", "1 frames where 4 are expected"},
        MalformedCase{"ManyFrames", RawPeer::Frames(500, "x"), "", "frames where 4 are expected"},
        MalformedCase{"Version", {"lorikeet/2", "json", "status", "{}"}, "", "version \\\"lorikeet/2\\\""},
        MalformedCase{"Encoding", {"lorikeet/1", "xml", "status", "<id/>"}, "", "encoding \\\"xml\\\""},
        MalformedCase{"Kind", {"lorikeet/1", "json", "delta", "{}"}, "", "unknown kind \\\"delta\\\""},
        MalformedCase{"Oversized",
                      {"lorikeet/1", "json", "status", std::string(1001, ' ')},
                      "",
                      "a body of 1001 bytes where 1000 are allowed"},
        MalformedCase{"NotJson", {"lorikeet/1", "json", "status", "{"}, "", "not JSON"},
        MalformedCase{"DeepJson", {"lorikeet/1", "json", "status", std::string(900, '[')}, "", "nested deeper than 64"},
        MalformedCase{"WrongType",
                      {"lorikeet/1", "json", "generate", R"({"id":"q","prompt":"p","max_tokens":"5"})"},
                      "q",
                      "max_tokens must be an integer, not a string"},
        MalformedCase{"UnknownField",
                      {"lorikeet/1", "json", "generate", R"({"id":"q","prompt":"p","temprature":0})"},
                      "q",
                      "unknown field \\\"temprature\\\""},
        MalformedCase{"NoId", {"lorikeet/1", "json", "generate", R"({"prompt":"p"})"}, "", "id is missing"},
        MalformedCase{
            "EmptyId", {"lorikeet/1", "json", "generate", R"({"id":"","prompt":"p"})"}, "", "id must not be empty"},
        MalformedCase{"Heartbeat", {"lorikeet/1", "json", "heartbeat", "x"}, "", "a heartbeat has 1 bytes"},
        MalformedCase{
            "CerealRubbish", {"lorikeet/1", "cereal", "generate", "\x01\x01rubbish"}, "", "malformed message: id"},
        MalformedCase{"CerealEmpty", {"lorikeet/1", "cereal", "generate", ""}, "", "no bytes"}),
    [](const auto& parameters) { return parameters.param.name; });

TEST(ZmqServer, AnswersAMessageWithADelimiterBehindADelimiterSoThatAReqSocketSeesIt) {
  EchoServer server;
  for (const auto type : {zmq::socket_type::req, zmq::socket_type::dealer}) {
    RawPeer client(type, server.address());
    const bool req = type == zmq::socket_type::req;  // which puts the delimiter itself, and takes it off
    RawPeer::Frames frames = {"lorikeet/1", "json", "status", R"({"id":"s"})"};
    if (!req) frames.insert(frames.begin(), "");
    client.send(frames);
    auto answer = client.receive_message();
    ASSERT_TRUE(answer);
    if (!req) {
      EXPECT_EQ(answer->at(0), "");
      answer->erase(answer->begin());
    }
    ASSERT_EQ(answer->size(), 4u);
    EXPECT_EQ(answer->at(2), "failure");
    EXPECT_THAT(answer->at(3), HasSubstr("5 frames where 4 are expected"));
    EXPECT_THAT(answer->at(3), HasSubstr("DEALER"));
  }
}

TEST(ZmqServer, EndsTheConnectionOfAClientThatSendsFarTooMuch) {
  ZmqServerOptions options = with_heartbeat(50);
  options.max_message_bytes = 1000;
  EchoServer server(options);
  const auto other = connect_to(server);
  RawPeer client(zmq::socket_type::dealer, server.address());
  client.send({"lorikeet/1", "json", "generate", R"({"id":"a","prompt":"p"})"});
  const ClientId id = server.client_of("a");
  client.send({"lorikeet/1", "json", "status", std::string(3000, ' ')});
  EXPECT_TRUE(server.wait_until_gone(id));
  ASSERT_TRUE(other->send(request_of("b", {1})));
  EXPECT_EQ(expect<Delta>(*other).id, "b");
}

TEST(ZmqServer, SaysThatASilentClientIsGone) {
  EchoServer server(with_heartbeat(20));
  RawPeer client(zmq::socket_type::dealer, server.address());
  client.send({"lorikeet/1", "json", "generate", R"({"id":"a","prompt":"p"})"});
  const ClientId id = server.client_of("a");
  EXPECT_TRUE(server.wait_until_gone(id));
  EXPECT_EQ(server.gone(), std::vector<ClientId>{id});
  // When it speaks again it is another client, and sees so by its session.
  client.send({"lorikeet/1", "json", "generate", R"({"id":"b","prompt":"p"})"});
  EXPECT_NE(server.client_of("b"), id);
}

TEST(ZmqServer, KeepsAClientThatOnlySendsHeartbeats) {
  constexpr int kHeartbeat = 200;
  EchoServer server(with_heartbeat(kHeartbeat));
  RawPeer client(zmq::socket_type::dealer, server.address());
  std::set<std::string> bodies;
  // Nine heartbeats of the server take longer than the five after which silence counts.
  for (int i = 0; i < 10; ++i) {
    client.send({"lorikeet/1", "json", "heartbeat", ""});
    const auto heartbeat = client.receive();
    ASSERT_TRUE(heartbeat);
    EXPECT_EQ((*heartbeat)[2], "heartbeat");
    bodies.insert((*heartbeat)[3]);
  }
  EXPECT_EQ(bodies.size(), 1u) << "the session changed";
  EXPECT_TRUE(server.gone().empty());
}

TEST(ZmqServer, SaysThatADisconnectedClientIsGone) {
  EchoServer server(with_heartbeat(100));
  auto client = connect_to(server);
  ASSERT_TRUE(client->send(endless_request("a")));
  const ClientId id = server.client_of("a");
  client.reset();
  EXPECT_TRUE(server.wait_until_gone(id));
  server.server().send(id, Delta{"a", "late", {}, {}});  // dropped
}

TEST(ZmqServer, DropsAClientThatDoesNotReadAndStallsNobody) {
  ZmqServerOptions options;
  options.max_pending_bytes = 1 << 20;
  EchoServer server(options);
  RawPeer slow(zmq::socket_type::dealer, server.address());
  slow.send({"lorikeet/1", "json", "generate", R"({"id":"slow","prompt":"p"})"});
  const ClientId id = server.client_of("slow");
  const auto other = connect_to(server);
  // What a connection holds without being read: ZeroMQ's 1,000 messages at the client are the most of it.
  constexpr size_t kBytes = 256 << 10;
  constexpr int kEnough = 4000;
  int sent = 0;
  while (server.gone().empty() && sent < kEnough) {
    server.server().send(id, Delta{"slow", std::string(kBytes, 'x'), {}, {}});
    ++sent;
    // An echo through the same queue: the answer above has been handled, and the other client is served.
    ASSERT_TRUE(other->send(request_of("fast", {1})));
    expect<Delta>(*other);
    expect<Done>(*other);
  }
  EXPECT_EQ(server.gone(), std::vector<ClientId>{id});
  EXPECT_LT(sent, kEnough);
  ASSERT_TRUE(other->send(request_of("after", {2})));
  EXPECT_EQ(expect<Delta>(*other).id, "after");
}

TEST(ZmqServer, ServesSixtyFourClientsAtOnce) {
  EchoServer server;
  constexpr int kClients = 64, kRequests = 5;
  std::vector<std::thread> threads;
  std::atomic<int> answered{0};
  for (int c = 0; c < kClients; ++c) {
    threads.emplace_back([&, c] {
      const auto client = connect_to(server, c % 2 == 0 ? Encoding::json : Encoding::cereal);
      for (int r = 0; r < kRequests; ++r) {
        ASSERT_TRUE(client->send(request_of(fmt::format("{}-{}", c, r), {c, r})));
      }
      for (int r = 0; r < kRequests; ++r) {
        EXPECT_EQ(expect<Delta>(*client).token_ids, std::vector<int32_t>{c});
        EXPECT_EQ(expect<Delta>(*client).token_ids, std::vector<int32_t>{r});
        EXPECT_EQ(expect<Done>(*client).id, fmt::format("{}-{}", c, r));
        ++answered;
      }
      EXPECT_FALSE(client->receive(0ms)) << "answered twice";
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(answered, kClients * kRequests);
}

TEST(ZmqServer, TakesAnswersFromManyThreads) {
  EchoServer server;
  const auto client = connect_to(server);
  ASSERT_TRUE(client->send(endless_request("a")));
  const ClientId id = server.client_of("a");
  constexpr int kThreads = 4, kEach = 200;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) server.server().send(id, Delta{std::to_string(t), "", {i}, {}});
    });
  }
  std::map<std::string, int32_t> next;
  for (int i = 0; i < kThreads * kEach; ++i) {
    const auto delta = expect<Delta>(*client);
    ASSERT_EQ(delta.token_ids.size(), 1u);
    EXPECT_EQ(delta.token_ids[0], next[delta.id]++) << "out of order";
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(ZmqServer, DeliversItsLastAnswersWhenItStops) {
  EchoServer server;
  const auto client = connect_to(server);
  ASSERT_TRUE(client->send(endless_request("a")));
  const ClientId id = server.client_of("a");
  server.server().send(id, Failure{"a", "shutting_down", "the server is going away"});
  server.stop();
  EXPECT_EQ(expect<Failure>(*client).code, "shutting_down");
}

TEST(ZmqServer, ListensOnAFileOfTheHost) {
  const tests::TempDir directory;
  ZmqServerOptions options;
  options.address = "ipc://" + (directory.path() / "socket").string();
  EchoServer server(options);
  EXPECT_EQ(server.address(), options.address);
  const auto client = connect_to(server);
  ASSERT_TRUE(client->send(request_of("a", {1})));
  EXPECT_EQ(expect<Delta>(*client).text, "t1");
}

TEST(ZmqServer, TakesAnyPortForZero) {
  ZmqServerOptions options;
  options.address = "tcp://127.0.0.1:0";
  EchoServer server(options);
  EXPECT_THAT(server.address(), StartsWith("tcp://127.0.0.1:"));
  EXPECT_NE(server.address(), options.address);
}

std::string start_failure(const std::string& address) {
  ZmqServerOptions options;
  options.address = address;
  const auto server = ZmqServer::start(options, {});
  return server ? "started" : server.error().message;
}

TEST(ZmqServer, SaysThatItsAddressIsInUse) {
  EchoServer server;
  EXPECT_EQ(start_failure(server.address()),
            fmt::format("cannot listen on {}: the address is in use", server.address()));
  const tests::TempDir directory;
  ZmqServerOptions options;
  options.address = "ipc://" + (directory.path() / "socket").string();
  EchoServer ipc_server(options);
  EXPECT_EQ(start_failure(options.address), fmt::format("cannot listen on {}: the address is in use", options.address));
  // And the first still has it.
  const auto client = connect_to(ipc_server);
  ASSERT_TRUE(client->send(request_of("a", {1})));
  EXPECT_EQ(expect<Delta>(*client).id, "a");
}

TEST(ZmqServer, TakesTheFileThatADeadServerLeftBehind) {
  const tests::TempDir directory;
  const std::filesystem::path path = directory.path() / "socket";
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::strncpy(name.sun_path, path.c_str(), sizeof(name.sun_path) - 1);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
  close(fd);
  ASSERT_TRUE(std::filesystem::exists(path));
  ZmqServerOptions options;
  options.address = "ipc://" + path.string();
  EchoServer server(options);
  const auto client = connect_to(server);
  ASSERT_TRUE(client->send(request_of("a", {1})));
  EXPECT_EQ(expect<Delta>(*client).id, "a");
}

TEST(ZmqServer, SaysWhatIsWrongWithAnAddress) {
  for (const char* address : {"", "rubbish", "tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "xyz://127.0.0.1:1",
                              "ipc:///no/such/directory/socket"}) {
    EXPECT_THAT(start_failure(address), StartsWith(fmt::format("cannot listen on {}: ", address)));
  }
}

}  // namespace
}  // namespace lorikeet::comm
