// The head's side of a cluster, with hosts that the test plays: they dial as workers do and say what they like.
#include "actors/supervisor/cluster_processes.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <condition_variable>
#include <fstream>

#include "actors/wire/checkpoint_message.h"
#include "actors/wire/control_channel.h"
#include "comm/codec/codec.h"
#include "tests/comm/cluster/cluster_hosts.h"

namespace lorikeet::actors {
namespace {

using tests::ClusterKeys;
using tests::kPatienceMs;
using ChildId = Processes::ChildId;

// A host without processes.
class PlayedHost {
 public:
  PlayedHost(const ClusterKeys& keys, uint16_t port, const host::Join& join) : keys_(keys), port_(port) {
    channel_ = std::make_unique<ControlChannel>(open(join).release());
    const auto first = channel_->receive_host_order();
    if (first && *first && std::holds_alternative<host::Admitted>(**first))
      admitted = std::get<host::Admitted>(**first);
  }

  static host::Join join(const std::string& name, std::vector<int32_t> devices) {
    return {"1.0", name, "instance of " + name, {"cpu", "", std::move(devices)}, false, ""};
  }

  // A connection with these first words; void: it could not be dialled.
  Descriptor open(const JoinRequest& request) {
    comm::DialOptions options;
    options.host = "127.0.0.1";
    options.port = port_;
    options.token = keys_.token();
    auto connection = comm::dial(*keys_.worker(), options, comm::encode(request));
    auto ends = comm::TlsRelay::make_ends();
    if (!connection || !ends) return {};
    relay_->add(*std::move(connection), std::move(ends->first));
    return std::move(ends->second);
  }

  // The next order that is no beat; nullopt: the link has ended.
  std::optional<HostOrder> order() {
    for (;;) {
      auto next = channel_->receive_host_order();
      if (!next || !*next) return std::nullopt;
      if (!std::holds_alternative<host::Beat>(**next)) return **std::move(next);
    }
  }
  std::optional<host::StartRank> start() {
    const auto next = order();
    if (!next || !std::holds_alternative<host::StartRank>(*next)) return std::nullopt;
    return std::get<host::StartRank>(*next);
  }
  void say(const HostReport& report) { (void)channel_->send(report); }
  int descriptor() const { return channel_->descriptor(); }
  void leave() { channel_.reset(); }

  std::optional<host::Admitted> admitted;

 private:
  const ClusterKeys& keys_;
  const uint16_t port_;
  std::unique_ptr<comm::TlsRelay> relay_ = *comm::TlsRelay::start();
  std::unique_ptr<ControlChannel> channel_;
};

class ClusterProcessesTest : public ::testing::Test {
 protected:
  // A head for ranks on `nnodes` hosts, this one lending nothing. Its own child sleeps, and would not hold up who
  // waits for the end of what a test says that has died.
  void open(int32_t nnodes, int32_t ranks, std::chrono::seconds join_timeout = std::chrono::seconds(60)) {
    std::ofstream(program()) << "#!/bin/sh\nexec sleep 600 > /dev/null 2>&1\n";
    chmod(program().c_str(), 0700);
    ClusterOptions options;
    options.nnodes = nnodes;
    options.master_addr = "127.0.0.1";
    options.master_port = 0;
    options.directory = (keys_ / "head").string();
    options.devices.kind = "cpu";
    options.version = "1.0";
    options.join_timeout = join_timeout;
    server_.tensor_parallel_size = ranks;
    server_.access.credentials.push_back({"a client's key", "", "default", true, {}, true});
    server_.http.ssl_keyfile = "/a/key";
    auto door = open_cluster(options);
    ASSERT_TRUE(door) << door.error().message;
    ClusterProcesses::Callbacks callbacks;
    callbacks.said = [this](ChildId child, const ChildReport& report) {
      const std::lock_guard lock(mutex_);
      said_.emplace_back(child, report);
      changed_.notify_all();
    };
    callbacks.exited = [this](ChildId child, const std::string& how, bool on_purpose, int signal) {
      const std::lock_guard lock(mutex_);
      exits_[child] = {how, on_purpose, signal};
      changed_.notify_all();
    };
    callbacks.progress = [this](const std::string& line) {
      const std::lock_guard lock(mutex_);
      progress_ += line + "\n";
      changed_.notify_all();
    };
    processes_ = std::make_unique<ClusterProcesses>(options, server_, *std::move(door), callbacks, program().string());
    head_ = processes_->spawn({server_, 1, -1, 0}, 0);
  }

  std::filesystem::path program() const { return keys_ / "program"; }

  PlayedHost host(const host::Join& join) { return PlayedHost(keys_, processes_->port(), join); }
  ChildId spawn(int32_t rank, uint64_t epoch = 1) { return processes_->spawn({server_, epoch, rank, 0}, head_); }

  struct Exit {
    std::string how;
    bool on_purpose = false;
    int signal = 0;
  };
  Exit exit_of(ChildId child) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(
        changed_.wait_for(lock, std::chrono::milliseconds(kPatienceMs), [&] { return exits_.count(child) > 0; }));
    return exits_[child];
  }
  bool has_said(const std::string& text) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::milliseconds(kPatienceMs),
                             [&] { return progress_.find(text) != std::string::npos; });
  }

  ClusterKeys keys_;
  ServerOptions server_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::pair<ChildId, ChildReport>> said_;
  std::map<ChildId, Exit> exits_;
  std::string progress_;
  ChildId head_ = 0;
  std::unique_ptr<ClusterProcesses> processes_;
};

bool ends(const Descriptor& connection) {
  return connection && tests::read_to_end(connection.get()).has_value();
}

TEST_F(ClusterProcessesTest, StartsRanksWhenAllHostsHaveJoinedAndTellsThemNoKeys) {
  ASSERT_NO_FATAL_FAILURE(open(3, 2));
  const ChildId first = spawn(0), second = spawn(1);
  EXPECT_TRUE(processes_->awaits_host(first));
  PlayedHost a = host(PlayedHost::join("a", {4}));
  ASSERT_TRUE(a.admitted);
  EXPECT_EQ(a.admitted->refused, "");
  EXPECT_TRUE(processes_->awaits_host(first)) << "one is missing";
  PlayedHost b = host(PlayedHost::join("b", {7}));
  const auto on_a = a.start(), on_b = b.start();
  ASSERT_TRUE(on_a && on_b);
  EXPECT_EQ(on_a->child, first);
  EXPECT_EQ(on_a->start.rank, 0);
  EXPECT_EQ(on_a->start.place.device, 4);
  EXPECT_EQ(on_a->start.place.ranks_on_host, 1);
  EXPECT_EQ(on_a->start.place.address, "127.0.0.1");
  EXPECT_EQ(on_b->child, second);
  EXPECT_EQ(on_b->start.place.device, 7);
  EXPECT_NE(on_a->start.place.host, on_b->start.place.host);
  EXPECT_TRUE(on_a->start.options.access.credentials.empty());
  EXPECT_EQ(on_a->start.options.http.ssl_keyfile, "");
  EXPECT_FALSE(processes_->awaits_host(first));
  EXPECT_TRUE(has_said("   1  b     127.0.0.1  cpu 7"));
}

TEST_F(ClusterProcessesTest, TellsAndKillsAndHearsARankOverItsHostsLink) {
  ASSERT_NO_FATAL_FAILURE(open(2, 1));
  const ChildId rank = spawn(0);
  PlayedHost a = host(PlayedHost::join("a", {0}));
  ASSERT_TRUE(a.start());
  processes_->tell(rank, control::LeaveGroup{2});
  auto told = a.order();
  ASSERT_TRUE(told && std::holds_alternative<host::TellRank>(*told));
  EXPECT_EQ(std::get<control::LeaveGroup>(std::get<host::TellRank>(*told).order).epoch, 2U);
  a.say(host::RankState{rank, true, "process 7", false});
  a.say(host::RankSaid{rank, control::HasLeft{2}});
  {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::milliseconds(kPatienceMs), [&] { return !said_.empty(); }));
    EXPECT_EQ(said_[0].first, rank);
    EXPECT_EQ(std::get<control::HasLeft>(said_[0].second).epoch, 2U);
  }
  EXPECT_TRUE(processes_->is_stopped(rank));
  EXPECT_FALSE(processes_->is_ending(rank));
  EXPECT_EQ(processes_->describe(rank), "process 7 on a");
  processes_->kill(rank);
  told = a.order();
  ASSERT_TRUE(told && std::holds_alternative<host::KillRank>(*told));
  a.say(host::RankExited{rank, "was killed by signal 9", true, 9});
  const Exit exit = exit_of(rank);
  EXPECT_EQ(exit.how, "was killed by signal 9");
  EXPECT_TRUE(exit.on_purpose);
  EXPECT_EQ(exit.signal, 9);
  EXPECT_TRUE(processes_->is_ending(rank)) << "it is not there any more";
}

TEST_F(ClusterProcessesTest, TakesTheConnectionOfTheRightRankOnceAndNoOther) {
  ASSERT_NO_FATAL_FAILURE(open(3, 2));
  const ChildId first = spawn(0, 5);
  const ChildId second = spawn(1, 5);
  PlayedHost a = host(PlayedHost::join("a", {0})), b = host(PlayedHost::join("b", {0}));
  ASSERT_TRUE(a.start() && b.start());
  const std::string link = a.admitted->link;
  EXPECT_NE(link, b.admitted->link);
  EXPECT_TRUE(ends(a.open(host::ConnectRank{"", first, 5, 0}))) << "without the link's secret";
  EXPECT_TRUE(ends(b.open(host::ConnectRank{b.admitted->link, first, 5, 0}))) << "of another host";
  EXPECT_TRUE(ends(a.open(host::ConnectRank{link, first, 4, 0}))) << "of an older epoch";
  EXPECT_TRUE(ends(a.open(host::ConnectRank{link, first, 5, 1}))) << "as another rank";
  EXPECT_TRUE(ends(a.open(host::ConnectRank{link, second, 5, 1}))) << "of a rank of another host";
  EXPECT_TRUE(ends(a.open(host::ConnectRank{link, head_, 5, -1}))) << "as the head";
  const Descriptor right = a.open(host::ConnectRank{link, first, 5, 0});
  EXPECT_TRUE(ends(a.open(host::ConnectRank{link, first, 5, 0}))) << "for a second time";
  pollfd state{right.get(), POLLIN, 0};
  EXPECT_EQ(poll(&state, 1, 0), 0) << "the right one has ended";
}

TEST_F(ClusterProcessesTest, EndsAHostThatSpeaksForAnothersRankOrSaysRubbish) {
  ASSERT_NO_FATAL_FAILURE(open(3, 2));
  const ChildId first = spawn(0), second = spawn(1);
  PlayedHost a = host(PlayedHost::join("a", {0})), b = host(PlayedHost::join("b", {0}));
  ASSERT_TRUE(a.start() && b.start());
  b.say(host::RankExited{first, "was killed by signal 9", false, 9});
  EXPECT_NE(exit_of(second).how.find("is lost with its host b"), std::string::npos) << exit_of(second).how;
  EXPECT_FALSE(b.order()) << "its link has ended";
  const std::string frame("\x05\0\0\0rubbish and more", 20);
  ASSERT_EQ(send(a.descriptor(), frame.data(), frame.size(), 0), 20);
  EXPECT_NE(exit_of(first).how.find("is lost with its host a"), std::string::npos);
}

TEST_F(ClusterProcessesTest, WaitsForARankWhoseHostGetsItsPartOfTheCheckpoint) {
  ASSERT_NO_FATAL_FAILURE(open(2, 1));
  const ChildId rank = spawn(0);
  PlayedHost a = host(PlayedHost::join("a", {0}));
  ASSERT_TRUE(a.start());
  EXPECT_TRUE(ends(a.open(host::ReadCheckpoint{"another"}))) << "without the link's secret";
  const Descriptor reader = a.open(host::ReadCheckpoint{a.admitted->link});
  const auto request = comm::encode(CheckpointRequest(checkpoint::ListFiles{}));
  const std::string head{static_cast<char>(request.size()), 0, 0, 0};
  ASSERT_EQ(send(reader.get(), head.data(), head.size(), 0), 4);
  ASSERT_EQ(send(reader.get(), request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
  char answer = 0;
  EXPECT_EQ(recv(reader.get(), &answer, 1, 0), 1);
  a.say(host::RankState{rank, false, "gets its part of the checkpoint: 10 %", true});
  EXPECT_TRUE(has_said("rank 0 on a gets its part of the checkpoint: 10 %"));
  EXPECT_TRUE(processes_->awaits_host(rank));
  a.say(host::RankState{rank, false, "process 7", false});
  a.say(host::RankSaid{rank, control::HasLeft{2}});
  {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::milliseconds(kPatienceMs), [&] { return !said_.empty(); }));
  }
  EXPECT_FALSE(processes_->awaits_host(rank));
  a.leave();
  exit_of(rank);
  EXPECT_TRUE(ends(reader)) << "with its link, the host's other connections end";
}

TEST_F(ClusterProcessesTest, PlacesRanksByTheLinksThatHostsTellOf) {
  ASSERT_NO_FATAL_FAILURE(open(2, 2));
  host::Join join = PlayedHost::join("a", {0, 1, 2});
  join.devices.model = "NVIDIA H200";
  join.devices.memory_bytes = {140ULL << 30, 140ULL << 30, 140ULL << 30};
  join.devices.links.assign(9, DeviceLink::pcie);
  join.devices.links[5] = join.devices.links[7] = DeviceLink::nvlink;  // 1 and 2
  PlayedHost a = host(join);
  const auto table = processes_->wait_for_placement();
  ASSERT_TRUE(table) << table.error().message;
  EXPECT_EQ(*table,
            "rank  host  address    device                        links\n"
            "   0  a     127.0.0.1  cpu 1 (NVIDIA H200, 140 GiB)  NVLink\n"
            "   1  a     127.0.0.1  cpu 2 (NVIDIA H200, 140 GiB)  NVLink");
}

TEST_F(ClusterProcessesTest, BringsARankBackOnASpareOrWaitsForItsHost) {
  ASSERT_NO_FATAL_FAILURE(open(2, 1));
  host::Join reserve = PlayedHost::join("reserve", {3});
  reserve.spare = true;
  auto spare = std::make_unique<PlayedHost>(keys_, processes_->port(), reserve);
  auto a = std::make_unique<PlayedHost>(keys_, processes_->port(), PlayedHost::join("a", {0}));
  const ChildId first = spawn(0, 1);
  ASSERT_TRUE(a->start()) << "the spare has no rank";
  a->leave();
  EXPECT_FALSE(exit_of(first).on_purpose);
  const ChildId second = spawn(0, 2);
  const auto on_spare = spare->start();
  ASSERT_TRUE(on_spare);
  EXPECT_EQ(on_spare->child, second);
  spare->leave();
  exit_of(second);
  const ChildId third = spawn(0, 3);
  EXPECT_TRUE(processes_->awaits_host(third));
  PlayedHost again = host(PlayedHost::join("a", {0}));
  EXPECT_EQ(again.admitted->epoch, 3U) << "it is told how far the others have got";
  const auto back = again.start();
  ASSERT_TRUE(back);
  EXPECT_EQ(back->child, third);
}

TEST_F(ClusterProcessesTest, ForgetsTheLastLinkOfAProcessThatDialsAnew) {
  ASSERT_NO_FATAL_FAILURE(open(2, 1));
  const ChildId first = spawn(0, 1);
  PlayedHost before = host(PlayedHost::join("a", {0}));
  ASSERT_TRUE(before.start());
  const Descriptor rank = before.open(host::ConnectRank{before.admitted->link, first, 1, 0});
  PlayedHost after = host(PlayedHost::join("a", {0}));
  EXPECT_NE(exit_of(first).how.find("joined anew"), std::string::npos);
  EXPECT_TRUE(ends(rank)) << "what a rank of before says does not arrive";
  EXPECT_FALSE(before.order());
  spawn(0, 2);
  EXPECT_TRUE(after.start());
}

TEST_F(ClusterProcessesTest, RefusesHostsThatDoNotFitWithASentence) {
  ASSERT_NO_FATAL_FAILURE(open(3, 1));
  host::Join join = PlayedHost::join("a", {0});
  join.version = "0.9";
  EXPECT_EQ(host(join).admitted->refused, "the head is lorikeet 1.0, and this host has 0.9");
  join = PlayedHost::join("a", {0});
  join.devices.kind = "cuda";
  EXPECT_EQ(host(join).admitted->refused, "the ranks compute on cpu, and this host lends cuda");
  EXPECT_EQ(host(PlayedHost::join("a", {})).admitted->refused, "a host lends 1 to 64 devices, not 0");
  PlayedHost good = host(PlayedHost::join("a", {0}));
  EXPECT_EQ(good.admitted->refused, "");
  join = PlayedHost::join("b", {0});
  join.devices.model = "another, and one more";
  EXPECT_NE(host(join).admitted->refused.find("several models"), std::string::npos);
  join.devices.links.assign(2, DeviceLink::pcie);
  EXPECT_NE(host(join).admitted->refused.find("memory and links"), std::string::npos);
  join.devices.links.clear();
  join.devices.model = "another";
  EXPECT_NE(host(join).admitted->refused.find("--mixed-devices"), std::string::npos);
}

TEST_F(ClusterProcessesTest, GivesUpWhenTooLittleIsLent) {
  ASSERT_NO_FATAL_FAILURE(open(2, 3));
  const ChildId rank = spawn(0);
  PlayedHost a = host(PlayedHost::join("a", {0, 1}));
  EXPECT_EQ(exit_of(rank).how, "has no place: 3 ranks need as many devices, and the hosts lend 2");
  const auto table = processes_->wait_for_placement();
  EXPECT_FALSE(table);
}

TEST_F(ClusterProcessesTest, GivesUpWhenHostsDoNotComeInTime) {
  ASSERT_NO_FATAL_FAILURE(open(2, 1, std::chrono::seconds(0)));
  EXPECT_NE(exit_of(spawn(0)).how.find("not all of 2 hosts have joined"), std::string::npos);
}

}  // namespace
}  // namespace lorikeet::actors
