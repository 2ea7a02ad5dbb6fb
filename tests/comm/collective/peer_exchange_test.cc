#include "comm/collective/peer_exchange.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "comm/collective/collective.h"
#include "tests/comm/collective/file_rendezvous.h"
#include "tests/comm/collective/processes.h"

namespace lorikeet::comm {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using ::testing::Each;
using ::testing::HasSubstr;

PeerExchangeOptions options_of(int rank, int size, std::chrono::milliseconds timeout = 30s) {
  PeerExchangeOptions options;
  options.rank = rank;
  options.size = size;
  options.prefix = "test";
  options.timeout = timeout;
  return options;
}

// A file in memory that holds the rank's number.
PeerOffer offer_of(int rank) {
  PeerOffer offer;
  offer.descriptor.reset(memfd_create("a test", MFD_CLOEXEC));
  PCHECK(offer.descriptor && pwrite(offer.descriptor.get(), &rank, sizeof rank, 0) == sizeof rank);
  offer.about = "rank " + std::to_string(rank);
  return offer;
}

std::string check_offers(const Peers& peers, int rank) {
  for (int r = 0; r < static_cast<int>(peers.offers.size()); r++) {
    const PeerOffer& offer = peers.offers[static_cast<size_t>(r)];
    if (r == rank) continue;
    int content = -1;
    if (pread(offer.descriptor.get(), &content, sizeof content, 0) != sizeof content || content != r) {
      return "a descriptor is another rank's";
    }
    if (offer.about != "rank " + std::to_string(r)) return "it says " + offer.about;
  }
  return "";
}

// The reports of `size` processes that all take part with what `offer` gives.
std::vector<std::string> exchange(int size, const std::function<Result<PeerOffer>(int rank)>& offer,
                                  const std::function<std::string(const Peers&, int rank)>& then) {
  const tests::TempDir directory;
  return run_processes(size, [&](int rank) -> std::string {
    FileRendezvous store(directory.path());
    auto peers = exchange_with_peers(store, options_of(rank, size), offer(rank));
    return peers ? then(*peers, rank) : peers.error().message;
  });
}

TEST(PeerExchange, GivesEveryRankTheDescriptorsOfAllOthers) {
  for (const int size : {1, 2, 4, 8}) EXPECT_THAT(exchange(size, offer_of, check_offers), Each("")) << size;
}

TEST(PeerExchange, TellsAllRanksAtOnceThatOneOffersNothing) {
  const Clock::time_point begin = Clock::now();
  const std::vector<std::string> reports = exchange(
      3, [](int rank) { return rank == 1 ? Result<PeerOffer>(fail("it has no memory")) : offer_of(rank); },
      [](const Peers&, int) { return "it went on"; });
  EXPECT_THAT(reports[0], HasSubstr("rank 1 offers nothing"));
  EXPECT_EQ(reports[1], "it has no memory");
  EXPECT_THAT(reports[2], HasSubstr("rank 1 offers nothing"));
  EXPECT_LT(Clock::now() - begin, 20s);  // the time-out is 30 s
}

TEST(PeerExchange, SeesAPeerDie) {
  const std::vector<std::string> reports = exchange(2, offer_of, [](const Peers& peers, int rank) -> std::string {
    if (rank == 1) raise(SIGKILL);
    const Clock::time_point deadline = Clock::now() + 10s;
    while (lost_peer(peers) != 1) {
      if (Clock::now() > deadline) return "it was not seen";
      std::this_thread::yield();
    }
    return "";
  });
  EXPECT_EQ(reports[0], "");
  EXPECT_EQ(reports[1], "killed by signal 9");
}

TEST(PeerExchange, GivesUpWhenARankDoesNotCome) {
  const tests::TempDir directory;
  FileRendezvous store(directory.path());
  EXPECT_THROW(exchange_with_peers(store, options_of(0, 2, 50ms), offer_of(0)), CollectiveError);
}

// Somebody who has read the store, but is not the rank: says nothing, or the wrong things.
TEST(PeerExchange, ListensToNoStranger) {
  const tests::TempDir directory;
  FileRendezvous store(directory.path());
  std::vector<uint8_t> dead(32, 7);  // a rank that has said where it is, and then died
  std::ifstream boot("/proc/sys/kernel/random/boot_id");
  std::string host;
  std::getline(boot, host);
  dead.insert(dead.end(), host.begin(), host.end());
  store.set("test/peer/1", dead);
  std::thread stranger([&] {
    FileRendezvous other(directory.path());
    const std::vector<uint8_t> value = other.get("test/peer/0", 10s);
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    std::string text = "lorikeet-";
    for (size_t i = 0; i < 16; i++) text += fmt::format("{:02x}", value[i]);
    std::copy(text.begin(), text.end(), name.sun_path + 1);
    const Descriptor line(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
    EXPECT_EQ(connect(line.get(), reinterpret_cast<sockaddr*>(&name), size), 0);
    const std::vector<uint8_t> nonsense(300, 1);
    EXPECT_EQ(send(line.get(), nonsense.data(), nonsense.size(), MSG_NOSIGNAL), 300);
    char answer = 0;
    EXPECT_LE(recv(line.get(), &answer, 1, 0), 0);  // closed
  });
  const auto peers = exchange_with_peers(store, options_of(0, 2, 500ms), offer_of(0));
  stranger.join();
  ASSERT_FALSE(peers);
  EXPECT_EQ(peers.error().message, "1 ranks did not call in time");
}

TEST(PeerExchange, RefusesAddressesThatAreNone) {
  const tests::TempDir directory;
  FileRendezvous store(directory.path());
  store.set("test/peer/1", {1, 2, 3});
  const auto short_one = exchange_with_peers(store, options_of(0, 2), offer_of(0));
  ASSERT_FALSE(short_one);
  EXPECT_EQ(short_one.error().message, "rank 1 offers nothing");
  store.set("test/peer/1", std::vector<uint8_t>(80, 7));
  const auto elsewhere = exchange_with_peers(store, options_of(0, 2), offer_of(0));
  ASSERT_FALSE(elsewhere);
  EXPECT_EQ(elsewhere.error().message, "rank 1 is on another host");
}

TEST(PeerExchange, AgreesOnlyWhereAllDo) {
  for (const int dissenter : {-1, 0, 2}) {
    const tests::TempDir directory;
    const std::string wanted = dissenter < 0 ? "yes" : "no";
    EXPECT_THAT(run_processes(3,
                              [&](int rank) -> std::string {
                                FileRendezvous store(directory.path());
                                return all_agree(store, options_of(rank, 3), "vote", rank != dissenter) ? "yes" : "no";
                              }),
                Each(wanted));
  }
}

}  // namespace
}  // namespace lorikeet::comm
