// Who may connect to the server's socket: keys of CURVE, passwords of PLAIN, and strangers of every kind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>
#include <zmq.hpp>

#include "comm/client/curve_keys.h"
#include "comm/client/zmq_client.h"
#include "comm/client/zmq_server.h"

namespace lorikeet::comm {
namespace {

using namespace std::chrono_literals;

constexpr auto kLong = 30s;  // for what must happen, however busy the machine

// A server that answers every request with the name of its user.
class GuardedServer {
 public:
  explicit GuardedServer(ZmqMechanism mechanism, int handshake_ms = 30'000, size_t max_unspoken = 1024) {
    ZmqServerOptions options;
    options.max_unspoken = max_unspoken;
    options.handshake_ms = handshake_ms;
    options.address = "tcp://127.0.0.1:*";
    options.mechanism = mechanism;
    options.secret_key = keys_.secret_key;
    options.users.of_curve_key = [this](const std::string& key) -> std::optional<std::string> {
      if (key == friend_.public_key) return "friend";
      if (key == other_.public_key) return "other";
      return std::nullopt;
    };
    options.users.of_password = [](std::string_view user, std::string_view password) -> std::optional<std::string> {
      if (user == "acme" && password == "secret") return "friend";
      return std::nullopt;
    };
    ZmqServerCallbacks callbacks;
    callbacks.on_user = [this](ClientId client, const std::string& user) {
      const std::lock_guard lock(mutex_);
      users_[client] = user;
    };
    callbacks.on_message = [this](ClientId client, ClientMessage message) {
      std::unique_lock lock(mutex_);
      started_.wait(lock, [this] { return server_ != nullptr; });
      const auto& request = std::get<GenerateRequest>(message);
      server_->send(client, Delta{request.id, users_.at(client), {1}, {}});
      if (request.prompt == "on") return;
      server_->send(client, Done{request.id, "stop", std::nullopt, {}, 1, {}});
    };
    callbacks.on_gone = [this](ClientId client) {
      const std::lock_guard lock(mutex_);
      gone_.push_back(users_.at(client));
    };
    auto started = ZmqServer::start(options, std::move(callbacks));
    EXPECT_TRUE(started) << started.error().message;
    const std::lock_guard lock(mutex_);
    server_ = *std::move(started);
    started_.notify_all();
  }

  ZmqIdentity identity(const CurveKeys& own) const {
    return {keys_.public_key, own.public_key, own.secret_key, "", ""};
  }
  const CurveKeys& friend_keys() const { return friend_; }
  const CurveKeys& other_keys() const { return other_; }
  std::string address() const { return server_->address(); }
  std::vector<std::string> gone() {
    const std::lock_guard lock(mutex_);
    return gone_;
  }

 private:
  const CurveKeys keys_ = make_curve_keys().value(), friend_ = make_curve_keys().value(),
                  other_ = make_curve_keys().value();
  std::mutex mutex_;
  std::condition_variable started_;
  std::map<ClientId, std::string> users_;
  std::vector<std::string> gone_;  // users
  std::unique_ptr<ZmqServer> server_;
};

// Who the server says that the client is.
std::string name_at(const GuardedServer& server, const ZmqIdentity& identity) {
  auto client = ZmqClient::connect(server.address(), Encoding::json, identity);
  EXPECT_TRUE(client) << client.error().message;
  GenerateRequest request;
  request.id = "1";
  EXPECT_TRUE((*client)->send(request));
  const auto answer = (*client)->receive(kLong);
  const auto* delta = answer ? std::get_if<Delta>(&*answer) : nullptr;
  return delta != nullptr ? delta->text : "nobody";
}

// A DEALER that hears how its handshake went.
class Stranger {
 public:
  explicit Stranger(const std::string& address, const ZmqIdentity& identity = {}, const std::string& routing_id = "") {
    socket_.set(zmq::sockopt::linger, 0);
    socket_.set(zmq::sockopt::reconnect_ivl, -1);
    if (!routing_id.empty()) socket_.set(zmq::sockopt::routing_id, routing_id);
    if (!identity.server_key.empty()) {
      socket_.set(zmq::sockopt::curve_serverkey, identity.server_key);
      socket_.set(zmq::sockopt::curve_publickey, identity.public_key);
      socket_.set(zmq::sockopt::curve_secretkey, identity.secret_key);
    } else if (!identity.user.empty()) {
      socket_.set(zmq::sockopt::plain_username, identity.user);
      socket_.set(zmq::sockopt::plain_password, identity.password);
    }
    EXPECT_EQ(zmq_socket_monitor(socket_.handle(), "inproc://handshake", ZMQ_EVENT_ALL), 0);
    events_.connect("inproc://handshake");
    socket_.connect(address);
  }
  ~Stranger() { zmq_socket_monitor(socket_.handle(), nullptr, 0); }

  // True when it was let in, false when it was refused or cut.
  bool is_let_in() {
    while (true) {
      zmq::pollitem_t item{events_.handle(), 0, ZMQ_POLLIN, 0};
      if (zmq::poll(&item, 1, kLong) == 0) {
        ADD_FAILURE() << "neither let in nor refused";
        return false;
      }
      zmq::message_t event, endpoint;
      (void)events_.recv(event);
      (void)events_.recv(endpoint);
      uint16_t kind = 0;
      std::memcpy(&kind, event.data(), sizeof(kind));
      if (kind == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) return true;
      if (kind == ZMQ_EVENT_DISCONNECTED || kind == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH ||
          kind == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL || kind == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL) {
        return false;
      }
    }
  }

  zmq::socket_t& socket() { return socket_; }

 private:
  zmq::context_t context_{1};
  zmq::socket_t socket_{context_, zmq::socket_type::dealer}, events_{context_, zmq::socket_type::pair};
};

std::vector<std::string> generate(const std::string& id, const std::string& prompt) {
  return {"lorikeet/1", "json", "generate", fmt::format(R"({{"id": "{}", "prompt": "{}"}})", id, prompt)};
}

// Sends a request and waits for the Delta that names the user.
std::string ask(zmq::socket_t& socket, const std::string& prompt) {
  const auto frames = generate("1", prompt);
  for (size_t i = 0; i < frames.size(); ++i) {
    socket.send(zmq::buffer(frames[i]), i + 1 < frames.size() ? zmq::send_flags::sndmore : zmq::send_flags::none);
  }
  while (true) {
    zmq::pollitem_t item{socket.handle(), 0, ZMQ_POLLIN, 0};
    if (zmq::poll(&item, 1, kLong) == 0) return "";
    std::vector<std::string> answer;
    for (bool more = true; more;) {
      zmq::message_t frame;
      (void)socket.recv(frame);
      more = frame.more();
      answer.push_back(frame.to_string());
    }
    if (answer.size() == 4 && answer[2] == "delta") return answer[3];
  }
}

TEST(ZmqSecurity, KnowsClientsOfCurveByTheirKeys) {
  GuardedServer server(ZmqMechanism::curve);
  EXPECT_EQ(name_at(server, server.identity(server.friend_keys())), "friend");
  EXPECT_EQ(name_at(server, server.identity(server.other_keys())), "other");
}

TEST(ZmqSecurity, LetsNobodyInWithoutTheRightKeysOfCurve) {
  GuardedServer server(ZmqMechanism::curve);
  EXPECT_TRUE(Stranger(server.address(), server.identity(server.friend_keys())).is_let_in());
  EXPECT_FALSE(Stranger(server.address(), server.identity(make_curve_keys().value())).is_let_in());
  ZmqIdentity wrong_server = server.identity(server.friend_keys());
  wrong_server.server_key = make_curve_keys().value().public_key;
  EXPECT_FALSE(Stranger(server.address(), wrong_server).is_let_in());
  CurveKeys stolen = make_curve_keys().value();  // the public key of a friend without its secret
  stolen.public_key = server.friend_keys().public_key;
  EXPECT_FALSE(Stranger(server.address(), server.identity(stolen)).is_let_in());
  EXPECT_FALSE(Stranger(server.address()).is_let_in());
  EXPECT_FALSE(Stranger(server.address(), {"", "", "", "acme", "secret"}).is_let_in());
  EXPECT_EQ(name_at(server, server.identity(server.friend_keys())), "friend") << "the server goes on";
}

TEST(ZmqSecurity, AsksForThePasswordOfPlain) {
  GuardedServer server(ZmqMechanism::plain);
  EXPECT_EQ(name_at(server, {"", "", "", "acme", "secret"}), "friend");
  EXPECT_FALSE(Stranger(server.address(), {"", "", "", "acme", "secre"}).is_let_in());
  EXPECT_FALSE(Stranger(server.address(), {"", "", "", "acme", std::string(255, 'x')}).is_let_in());
  EXPECT_FALSE(Stranger(server.address(), {"", "", "", "other", "secret"}).is_let_in());
  EXPECT_FALSE(Stranger(server.address()).is_let_in());
  EXPECT_FALSE(Stranger(server.address(), server.identity(server.friend_keys())).is_let_in());
}

// Bytes over TCP, no ZeroMQ.
class Bytes {
 public:
  explicit Bytes(const std::string& address) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
    const timeval patience{30, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  }
  ~Bytes() { close(fd_); }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;

  void send(const std::string& bytes) { (void)!::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }

  bool is_cut() {
    char buffer[512];
    ssize_t got = 0;
    while ((got = recv(fd_, buffer, sizeof(buffer), 0)) > 0) {
    }
    return got == 0 || errno == ECONNRESET;
  }

 private:
  const int fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
};

// What opens a handshake of CURVE.
std::string curve_greeting() {
  std::string greeting = "\xFF" + std::string(8, '\0') + "\x7F\x03" + std::string(1, '\0') + "CURVE";
  greeting.resize(64, '\0');
  return greeting;
}

TEST(ZmqSecurity, KeepsOnlySoManyHandshakesThatDoNotEnd) {
  constexpr size_t kMost = 4;
  GuardedServer server(ZmqMechanism::curve, 600'000, kMost);  // time alone cuts nobody
  Stranger known(server.address(), server.identity(server.friend_keys()));
  EXPECT_THAT(ask(known.socket(), "on"), ::testing::HasSubstr("friend"));
  std::vector<std::unique_ptr<Bytes>> strangers;
  for (size_t i = 0; i < 30; ++i) {
    strangers.push_back(std::make_unique<Bytes>(server.address()));
    strangers.back()->send(curve_greeting());
  }
  for (size_t i = 0; i + kMost < strangers.size(); ++i) EXPECT_TRUE(strangers[i]->is_cut()) << i;
  EXPECT_EQ(name_at(server, server.identity(server.other_keys())), "other") << "there is room for who has a key";
  EXPECT_THAT(server.gone(), ::testing::Not(::testing::Contains("friend"))) << "who has spoken is left alone";
}

TEST(ZmqSecurity, CutsStrangersWhoDoNotFinishTheHandshake) {
  GuardedServer server(ZmqMechanism::curve, 300);
  const std::string greeting = curve_greeting();
  const std::string hello =
      "\x04\xC8\x05HELLO\x01" + std::string(1, '\0');  // of 200 bytes, the rest of which never comes
  const std::string texts[] = {"",
                               "GET / HTTP/1.1\r\n\r\n",
                               std::string(4096, '\xFF'),
                               greeting,
                               greeting + hello,
                               greeting + "\x04\x04\x05HELLO",
                               greeting + std::string("\0\x05hello", 7)};
  std::vector<std::unique_ptr<Bytes>> strangers;
  for (const std::string& text : texts) {
    strangers.push_back(std::make_unique<Bytes>(server.address()));
    strangers.back()->send(text);
  }
  EXPECT_EQ(name_at(server, server.identity(server.friend_keys())), "friend") << "beside them";
  for (const auto& stranger : strangers) EXPECT_TRUE(stranger->is_cut());
}

TEST(ZmqSecurity, DoesNotTakeAnotherUserForTheOneWhoHadItsRoutingId) {
  GuardedServer server(ZmqMechanism::curve);
  {
    Stranger first(server.address(), server.identity(server.friend_keys()), "name");
    EXPECT_THAT(ask(first.socket(), "on"), ::testing::HasSubstr("friend"));
  }
  // Until ZeroMQ has seen the first one's end, it does not take the name again.
  std::string answer;
  const auto deadline = std::chrono::steady_clock::now() + kLong;
  while (answer.empty() && std::chrono::steady_clock::now() < deadline) {
    Stranger second(server.address(), server.identity(server.other_keys()), "name");
    second.socket().set(zmq::sockopt::rcvtimeo, 1000);
    if (!second.is_let_in()) continue;
    const auto frames = generate("1", "end");
    for (size_t i = 0; i < frames.size(); ++i) {
      second.socket().send(zmq::buffer(frames[i]),
                           i + 1 < frames.size() ? zmq::send_flags::sndmore : zmq::send_flags::none);
    }
    for (int i = 0; i < 12 && answer.empty(); ++i) {
      zmq::message_t frame;
      if (!second.socket().recv(frame)) break;
      if (frame.to_string_view().find("\"text\"") != std::string_view::npos) answer = frame.to_string();
    }
  }
  EXPECT_THAT(answer, ::testing::HasSubstr("other"));
  EXPECT_THAT(server.gone(), ::testing::Contains("friend"));
}

}  // namespace
}  // namespace lorikeet::comm
