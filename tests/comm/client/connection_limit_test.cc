// Connections that are none of ZeroMQ's, or too many: a server goes on serving.
#include "comm/client/connection_limit.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "comm/client/zmq_server.h"
#include "kernels/base/descriptor.h"
#include "tests/comm/client/raw_peer.h"

namespace lorikeet::comm {
namespace {

// A server that answers every status request.
std::unique_ptr<ZmqServer> start(ZmqServerOptions options) {
  options.address = "tcp://127.0.0.1:*";
  auto server = std::make_shared<std::atomic<ZmqServer*>>(nullptr);
  ZmqServerCallbacks callbacks;
  callbacks.on_message = [server](ClientId client, const ClientMessage& message) {
    while (server->load() == nullptr) std::this_thread::yield();
    server->load()->send(client, StatusReply{std::get<StatusRequest>(message).id, "{}"});
  };
  auto started = ZmqServer::start(options, std::move(callbacks)).value();
  *server = started.get();
  return started;
}

Descriptor connect_to(const std::string& address) {
  Descriptor connection(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(connection.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
  const timeval patience{60, 0};
  setsockopt(connection.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  return connection;
}

// Until the server has ended the connection; false when it has not for a minute.
bool ends(const Descriptor& connection) {
  char bytes[256];
  for (;;) {
    const ssize_t got = recv(connection.get(), bytes, sizeof(bytes), 0);
    if (got == 0 || (got < 0 && errno == ECONNRESET)) return true;
    if (got < 0) return false;
  }
}

void expect_answer(const std::string& address) {
  RawPeer client(zmq::socket_type::dealer, address);
  client.send({"lorikeet/1", "json", "status", R"({"id":"s"})"});
  const auto answer = client.receive_message();
  ASSERT_TRUE(answer);
  EXPECT_NE(answer->back().find(R"("id":"s")"), std::string::npos);
}

TEST(ConnectionLimit, AConnectionThatDoesNotSpeakZeroMqIsCut) {
  ZmqServerOptions options;
  options.handshake_ms = 50;
  const auto server = start(options);
  const Descriptor silent = connect_to(server->address()), half = connect_to(server->address());
  ASSERT_EQ(send(half.get(), "\xFF\0\0\0\0", 5, MSG_NOSIGNAL), 5);
  EXPECT_TRUE(ends(silent));
  EXPECT_TRUE(ends(half));
  expect_answer(server->address());
}

TEST(ConnectionLimit, ThoseThatSayNothingMakeRoomForClients) {
  ZmqServerOptions options;
  options.handshake_ms = 600'000;  // so that they do not go by themselves
  options.max_connections = 8;
  const auto server = start(options);
  std::vector<Descriptor> silent;
  for (int i = 0; i < 100; ++i) silent.push_back(connect_to(server->address()));
  expect_answer(server->address());
  for (size_t i = 0; i + 8 < silent.size(); ++i) EXPECT_TRUE(ends(silent[i])) << i;
  expect_answer(server->address());
}

TEST(ConnectionLimit, ClientsPastTheLimitDisturbNoneThatAreThere) {
  ZmqServerOptions options;
  options.max_connections = 4;
  const auto server = start(options);
  RawPeer first(zmq::socket_type::dealer, server->address());
  const RawPeer::Frames question = {"lorikeet/1", "json", "status", R"({"id":"s"})"};
  first.send(question);
  ASSERT_TRUE(first.receive_message());
  {
    std::vector<std::unique_ptr<RawPeer>> others;
    for (int i = 0; i < 10; ++i) {
      others.push_back(std::make_unique<RawPeer>(zmq::socket_type::dealer, server->address()));
      others.back()->send(question);
    }
    first.send(question);
    EXPECT_TRUE(first.receive_message());
  }
  expect_answer(server->address());
}

TEST(ConnectionLimit, LeavesSomeDescriptorsToOthers) {
  const size_t all = descriptors_for_connections(0);
  EXPECT_EQ(descriptors_for_connections(10), all - 10);
  EXPECT_EQ(descriptors_for_connections(all + 10), 1u);
}

}  // namespace
}  // namespace lorikeet::comm
