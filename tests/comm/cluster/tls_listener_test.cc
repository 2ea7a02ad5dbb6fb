#include "comm/cluster/tls_listener.h"

#include <openssl/err.h>

#include <thread>

#include "comm/cluster/first_words.h"
#include "comm/codec/codec.h"
#include "tests/comm/cluster/cluster_hosts.h"

namespace lorikeet::tests {
namespace {

using comm::ClusterRole;
using comm::TlsConnection;
using std::chrono::milliseconds;

const std::vector<uint8_t> kWords = {1, 2, 3, 0, 255};

// A side of TLS with any files, which checks nothing of the other one.
SSL_CTX* careless(const std::filesystem::path& files) {
  SSL_CTX* context = SSL_CTX_new(TLS_method());
  EXPECT_EQ(SSL_CTX_use_certificate_chain_file(context, (files / "cert.pem").c_str()), 1);
  EXPECT_EQ(SSL_CTX_use_PrivateKey_file(context, (files / "key.pem").c_str(), SSL_FILETYPE_PEM), 1);
  return context;
}

// What a client with these files that checks nothing hears after its token and words: whether there was a byte.
bool hears_anything(SSL_CTX* context, uint16_t port, const std::string& token) {
  const Descriptor socket = stranger(port);
  const comm::Ssl ssl(SSL_new(context));
  SSL_set_fd(ssl.get(), socket.get());
  bool heard = false;
  if (SSL_connect(ssl.get()) == 1) {
    const auto words = comm::encode(comm::FirstWords{token, kWords});
    const auto size = static_cast<uint8_t>(words.size());
    std::vector<uint8_t> frame = {size, 0, 0, 0};
    frame.insert(frame.end(), words.begin(), words.end());
    SSL_write(ssl.get(), frame.data(), static_cast<int>(frame.size()));
    char byte = 0;
    heard = SSL_read(ssl.get(), &byte, 1) > 0;
  }
  ERR_clear_error();
  return heard;
}

TEST(TlsListener, AdmitsAWorkerAndHandsOnItsWordsAndNoByteBeyond) {
  const ClusterKeys keys;
  Door door(keys);
  auto dialled = comm::dial(*keys.worker(), door.options(keys), kWords);
  ASSERT_TRUE(dialled) << dialled.error().message;
  EXPECT_EQ(SSL_write(dialled->ssl.get(), "more", 4), 4);
  auto admitted = door.admitted();
  ASSERT_TRUE(admitted);
  EXPECT_EQ(admitted->second, kWords);
  EXPECT_EQ(admitted->first.peer_name, "worker");
  EXPECT_EQ(admitted->first.peer_address, "127.0.0.1");
  EXPECT_EQ(admitted->first.local_address, "127.0.0.1");
  EXPECT_EQ(dialled->peer_name, "head");
  EXPECT_STREQ(SSL_get_version(dialled->ssl.get()), "TLSv1.3");
  pollfd state{admitted->first.socket.get(), POLLIN, 0};
  char bytes[8] = {};
  int got = 0;
  while ((got = SSL_read(admitted->first.ssl.get(), bytes, sizeof(bytes))) <= 0) {
    ASSERT_EQ(poll(&state, 1, kPatienceMs), 1);
  }
  EXPECT_EQ(std::string(bytes, static_cast<size_t>(got)), "more");
}

TEST(TlsListener, AdmitsAHostWithACertificateOfItsOwn) {
  const ClusterKeys keys;
  ASSERT_TRUE(comm::add_worker_keys(keys / "", "gpu-07", 1));
  const auto context = comm::TlsContext::load(keys / "gpu-07", ClusterRole::worker);
  ASSERT_TRUE(context) << context.error().message;
  Door door(keys);
  ASSERT_TRUE(comm::dial(**context, door.options(keys), kWords));
  const auto admitted = door.admitted();
  ASSERT_TRUE(admitted);
  EXPECT_EQ(admitted->first.peer_name, "gpu-07");
}

TEST(TlsListener, AnswersOneWithoutTheTokenWithTheEnd) {
  const ClusterKeys keys;
  Door door(keys);
  auto options = door.options(keys);
  options.token = std::string(64, '0');
  const auto dialled = comm::dial(*keys.worker(), options, kWords);
  ASSERT_TRUE(dialled) << dialled.error().message;
  const auto said = read_to_end(dialled->socket.get());
  ASSERT_TRUE(said);
  EXPECT_EQ(*said, "");
  EXPECT_NE(door.refusal().find("join token"), std::string::npos) << door.refusal();
  EXPECT_EQ(door.waiting(), 0U);
}

TEST(TlsListener, RefusesTheCertificateOfAnotherAuthority) {
  const ClusterKeys keys, others;
  Door door(keys);
  SSL_CTX* context = careless(others / "worker");
  EXPECT_FALSE(hears_anything(context, door.port(), keys.token()));
  EXPECT_NE(door.refusal().find("certificate"), std::string::npos) << door.refusal();
  EXPECT_EQ(door.waiting(), 0U);
  SSL_CTX_free(context);
}

TEST(TlsListener, RefusesAWorkerWithoutACertificateAndTheHeadsOwn) {
  const ClusterKeys keys;
  Door door(keys);
  SSL_CTX* nobody = SSL_CTX_new(TLS_method());
  EXPECT_FALSE(hears_anything(nobody, door.port(), keys.token()));
  SSL_CTX* head = careless(keys / "head");
  EXPECT_FALSE(hears_anything(head, door.port(), keys.token()));
  EXPECT_EQ(door.waiting(), 0U);
  SSL_CTX_free(nobody);
  SSL_CTX_free(head);
}

TEST(TlsListener, RefusesAnExpiredCertificate) {
  const ClusterKeys keys;
  ASSERT_TRUE(comm::add_worker_keys(keys / "", "yesterday", -1));
  const auto loaded = comm::TlsContext::load(keys / "yesterday", ClusterRole::worker);
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message.find("expired"), std::string::npos) << loaded.error().message;
  Door door(keys);
  SSL_CTX* context = careless(keys / "yesterday");
  EXPECT_FALSE(hears_anything(context, door.port(), keys.token()));
  EXPECT_NE(door.refusal().find("expired"), std::string::npos) << door.refusal();
  SSL_CTX_free(context);
}

TEST(TlsListener, RefusesAnOlderTls) {
  const ClusterKeys keys;
  Door door(keys);
  SSL_CTX* context = careless(keys / "worker");
  SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
  EXPECT_FALSE(hears_anything(context, door.port(), keys.token()));
  SSL_CTX_free(context);
}

TEST(TlsListener, LetsNoWorkerPoseAsTheHead) {
  const ClusterKeys keys, others;
  EXPECT_FALSE(comm::TlsContext::load(keys / "worker", ClusterRole::head));
  for (const auto& files : {keys / "worker", others / "head"}) {
    SSL_CTX* context = careless(files);
    const Descriptor listening(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(at);
    ASSERT_EQ(bind(listening.get(), reinterpret_cast<sockaddr*>(&at), size), 0);
    ASSERT_EQ(listen(listening.get(), 1), 0);
    getsockname(listening.get(), reinterpret_cast<sockaddr*>(&at), &size);
    std::thread impostor([&] {
      const Descriptor accepted(accept(listening.get(), nullptr, nullptr));
      const comm::Ssl ssl(SSL_new(context));
      SSL_set_fd(ssl.get(), accepted.get());
      EXPECT_NE(SSL_accept(ssl.get()), 1) << "it was believed";
      ERR_clear_error();
    });
    comm::DialOptions options;
    options.host = "127.0.0.1";
    options.port = ntohs(at.sin_port);
    options.token = keys.token();
    const auto dialled = comm::dial(*keys.worker(), options, kWords);
    EXPECT_FALSE(dialled) << "the token would have been told";
    impostor.join();
    SSL_CTX_free(context);
  }
}

TEST(TlsListener, AnswersRubbishWithAnAlertAtMost) {
  const ClusterKeys keys;
  Door door(keys);
  const std::string kept = {'\x16', '\x03', '\x01', '\x40'};
  for (const std::string& rubbish : {std::string("GET / HTTP/1.1\r\nHost: head\r\n\r\n"), std::string(100'000, '\xff'),
                                     std::string(100'000, '\0'), kept + std::string(40'000, 'x')}) {
    const Descriptor connection = stranger(door.port());
    ASSERT_TRUE(connection);
    (void)send(connection.get(), rubbish.data(), rubbish.size(), MSG_NOSIGNAL);
    shutdown(connection.get(), SHUT_WR);
    const auto said = read_to_end(connection.get());
    ASSERT_TRUE(said);
    EXPECT_LE(said->size(), 7U) << "an alert, and nothing else";
  }
  EXPECT_TRUE(comm::dial(*keys.worker(), door.options(keys), kWords));
  EXPECT_TRUE(door.admitted());
}

TEST(TlsListener, RefusesFirstWordsThatAreTooLong) {
  const ClusterKeys keys;
  Door door(keys);
  EXPECT_FALSE(comm::dial(*keys.worker(), door.options(keys), std::vector<uint8_t>(comm::kMaxFirstWords)));
  SSL_CTX* context = careless(keys / "worker");
  const Descriptor socket = stranger(door.port());
  const comm::Ssl ssl(SSL_new(context));
  SSL_set_fd(ssl.get(), socket.get());
  ASSERT_EQ(SSL_connect(ssl.get()), 1);
  const std::vector<uint8_t> size = {255, 255, 255, 255};
  SSL_write(ssl.get(), size.data(), 4);
  EXPECT_TRUE(read_to_end(socket.get()));
  EXPECT_NE(door.refusal().find("make no sense"), std::string::npos) << door.refusal();
  SSL_CTX_free(context);
}

TEST(TlsListener, CutsOffWhoSendsByteByByte) {
  const ClusterKeys keys;
  comm::AdmissionLimits limits;
  limits.time = milliseconds(100);
  Door door(keys, limits);
  const auto begin = std::chrono::steady_clock::now();
  const Descriptor connection = stranger(door.port());
  ASSERT_TRUE(connection);
  // A hello that never ends, as long as there is somebody to hear it.
  for (const char byte : std::string("\x16\x03\x01\x40\x00", 5)) send(connection.get(), &byte, 1, MSG_NOSIGNAL);
  pollfd state{connection.get(), POLLIN, 0};
  while (poll(&state, 1, 1) == 0 && send(connection.get(), "\1", 1, MSG_NOSIGNAL) == 1) {
    ASSERT_LT(std::chrono::steady_clock::now() - begin, milliseconds(kPatienceMs));
  }
  EXPECT_GE(std::chrono::steady_clock::now() - begin, limits.time) << "cut before its time";
}

TEST(TlsListener, AdmitsAWorkerBesideFiveHundredIdleConnectionsAndLetsThemGo) {
  const ClusterKeys keys;
  comm::AdmissionLimits limits;
  limits.time = milliseconds(2'000);  // the worker's, too
  limits.unfinished_per_source = 512;
  Door door(keys, limits);
  std::vector<Descriptor> idle;
  for (int i = 0; i < 500; ++i) {
    idle.push_back(stranger(door.port()));
    ASSERT_TRUE(idle.back());
    if (i % 2 == 0) send(idle.back().get(), "\x16\x03\x01\x02", 4, MSG_NOSIGNAL);  // half a hello
  }
  auto dialled = comm::dial(*keys.worker(), door.options(keys), kWords);
  ASSERT_TRUE(dialled) << dialled.error().message;
  EXPECT_TRUE(door.admitted());
  for (const Descriptor& connection : idle) {
    const auto said = read_to_end(connection.get());
    ASSERT_TRUE(said) << "it is still there";
    EXPECT_EQ(*said, "");
  }
}

TEST(TlsListener, TakesTheOldestOfASourceForItsNextOne) {
  const ClusterKeys keys;
  comm::AdmissionLimits limits;
  limits.time = milliseconds(10L * kPatienceMs);
  limits.unfinished_per_source = 4;
  Door door(keys, limits);
  std::vector<Descriptor> idle;
  for (int i = 0; i < 10; ++i) idle.push_back(stranger(door.port()));
  for (int i = 0; i < 6; ++i) EXPECT_TRUE(read_to_end(idle[static_cast<size_t>(i)].get())) << i;
  for (size_t i = 6; i < 10; ++i) {
    pollfd state{idle[i].get(), POLLIN, 0};
    EXPECT_EQ(poll(&state, 1, 0), 0) << i << " has been cut though there was room";
  }
  ASSERT_TRUE(comm::dial(*keys.worker(), door.options(keys), kWords));
  EXPECT_TRUE(door.admitted());
}

TEST(TlsListener, BoundsAllUnfinishedConnections) {
  const ClusterKeys keys;
  comm::AdmissionLimits limits;
  limits.time = milliseconds(10L * kPatienceMs);
  limits.unfinished = 8;
  Door door(keys, limits);
  std::vector<Descriptor> idle;
  for (int i = 0; i < 20; ++i) idle.push_back(stranger(door.port()));
  for (size_t i = 0; i < 12; ++i) EXPECT_TRUE(read_to_end(idle[i].get())) << i;
  EXPECT_NE(door.refusal().find("too many"), std::string::npos) << door.refusal();
}

TEST(TlsDial, SaysWhyNobodyAnswers) {
  const ClusterKeys keys;
  comm::DialOptions options;
  options.token = keys.token();
  options.port = 1;
  options.host = "127.0.0.1";
  const auto refused = comm::dial(*keys.worker(), options, kWords);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("127.0.0.1:1"), std::string::npos) << refused.error().message;
  options.host = "no-such-host.invalid";
  EXPECT_FALSE(comm::dial(*keys.worker(), options, kWords));
}

}  // namespace
}  // namespace lorikeet::tests
