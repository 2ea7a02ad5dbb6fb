#include "comm/cluster/tls_relay.h"

#include <fcntl.h>

#include <numeric>
#include <thread>

#include "tests/comm/cluster/cluster_hosts.h"

namespace lorikeet::tests {
namespace {

using comm::TlsRelay;

// Two plain sockets with a relay behind each, and TLS between the relays.
class TlsRelayTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto worker = comm::dial(*keys_.worker(), door_.options(keys_), {});
    ASSERT_TRUE(worker) << worker.error().message;
    auto head = door_.admitted();
    ASSERT_TRUE(head);
    auto near = TlsRelay::start(), far = TlsRelay::start();
    auto near_ends = TlsRelay::make_ends(), far_ends = TlsRelay::make_ends();
    ASSERT_TRUE(near && far && near_ends && far_ends);
    near_relay_ = *std::move(near);
    far_relay_ = *std::move(far);
    near_id_ = near_relay_->add(*std::move(worker), std::move(near_ends->first));
    far_relay_->add(std::move(head->first), std::move(far_ends->first));
    near_ = std::move(near_ends->second);
    far_ = std::move(far_ends->second);
  }

  static std::string read_bytes(int socket, size_t count) {
    std::string read(count, '\0');
    size_t have = 0;
    while (have < count) {
      pollfd state{socket, POLLIN, 0};
      if (poll(&state, 1, kPatienceMs) <= 0) break;
      const ssize_t got = recv(socket, read.data() + have, count - have, 0);
      if (got <= 0) break;
      have += static_cast<size_t>(got);
    }
    read.resize(have);
    return read;
  }

  static std::string pattern(size_t count) {
    std::string bytes(count, '\0');
    for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<char>((i * 2654435761U) >> 24);
    return bytes;
  }

  ClusterKeys keys_;
  Door door_{keys_};
  std::unique_ptr<TlsRelay> near_relay_, far_relay_;
  TlsRelay::Id near_id_ = 0;
  Descriptor near_, far_;
};

TEST_F(TlsRelayTest, CarriesBytesBothWaysAtOnce) {
  const std::string there = pattern(3'000'001), back = pattern(2'000'003);
  std::thread first([&] { EXPECT_EQ(send(near_.get(), there.data(), there.size(), 0), ssize_t(there.size())); });
  std::thread second([&] { EXPECT_EQ(send(far_.get(), back.data(), back.size(), 0), ssize_t(back.size())); });
  std::string came_back;
  std::thread third([&] { came_back = read_bytes(near_.get(), back.size()); });
  EXPECT_TRUE(read_bytes(far_.get(), there.size()) == there);
  first.join();
  second.join();
  third.join();
  EXPECT_TRUE(came_back == back);
}

TEST_F(TlsRelayTest, CarriesWhatWasSaidBeforeTheEnd) {
  const std::string last = pattern(50'000);
  ASSERT_EQ(send(near_.get(), last.data(), last.size(), 0), ssize_t(last.size()));
  near_.reset();
  const auto said = read_to_end(far_.get());
  ASSERT_TRUE(said);
  EXPECT_TRUE(*said == last);
}

TEST_F(TlsRelayTest, EndsBothSidesWhenItIsCut) {
  near_relay_->cut(near_id_);
  EXPECT_TRUE(read_to_end(near_.get()));
  EXPECT_TRUE(read_to_end(far_.get()));
  near_relay_->cut(near_id_);  // it is gone
}

TEST_F(TlsRelayTest, EndsBothSidesWhenTheRelayEnds) {
  near_relay_.reset();
  EXPECT_TRUE(read_to_end(near_.get()));
  EXPECT_TRUE(read_to_end(far_.get()));
}

TEST_F(TlsRelayTest, HoldsUpAWriterWhoseReaderDoesNotRead) {
  fcntl(near_.get(), F_SETFL, O_NONBLOCK);
  const std::string chunk = pattern(64 << 10);
  constexpr size_t kMost = 64 << 20;  // of the buffers on the way, the kernel's above all
  size_t sent = 0;
  pollfd state{near_.get(), POLLOUT, 0};
  // Until nothing goes any more for a while; a pause that is too short only makes the test easier.
  while (sent < kMost && poll(&state, 1, 500) > 0) {
    const ssize_t count = send(near_.get(), chunk.data(), chunk.size(), 0);
    if (count > 0) sent += static_cast<size_t>(count);
  }
  EXPECT_LT(sent, kMost);
  EXPECT_EQ(read_bytes(far_.get(), sent).size(), sent) << "nothing is lost";
}

}  // namespace
}  // namespace lorikeet::tests
