#include "tests/launcher/network.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

namespace lorikeet::tests {
namespace {

bool run(const std::string& command) {
  return system((command + " > /dev/null 2>&1").c_str()) == 0;
}

Descriptor namespace_at(const std::string& path) {
  return Descriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC));
}

}  // namespace

std::string Network::why_not() {
  if (geteuid() != 0) return "network namespaces need root";
  const std::string name = fmt::format("lorikeet-try-{}", getpid());
  if (!run("ip netns add " + name)) return "this host has no ip(8), or allows no network namespaces";
  const bool can = run(fmt::format("ip -n {} link add lan type bridge", name)) &&
                   run(fmt::format("ip -n {} link add here type veth peer name there", name));
  run("ip netns del " + name);
  return can ? "" : "this kernel has no bridges or no veth pairs";
}

Network::Network(int hosts) : prefix_(fmt::format("lorikeet-{}-", getpid())), hosts_(hosts) {
  const std::string lan = prefix_ + "lan";
  EXPECT_TRUE(run("ip netns add " + lan));
  EXPECT_TRUE(run(fmt::format("ip -n {0} link add lan type bridge && ip -n {0} link set lan up", lan)));
  for (int host = 0; host < hosts; ++host) {
    const std::string at = name(host);
    EXPECT_TRUE(run("ip netns add " + at));
    EXPECT_TRUE(run(fmt::format("ip -n {} link add host{} type veth peer name lan netns {}", lan, host, at)));
    EXPECT_TRUE(run(fmt::format("ip -n {0} link set host{1} master lan && ip -n {0} link set host{1} up", lan, host)));
    EXPECT_TRUE(
        run(fmt::format("ip -n {0} addr add {1}/24 dev lan && ip -n {0} link set lan up && "
                        "ip -n {0} link set lo up",
                        at, address(host))));
  }
}

Network::~Network() {
  for (int host = 0; host < hosts_; ++host) run("ip netns del " + name(host));
  run("ip netns del " + prefix_ + "lan");
}

void Network::disconnect(int host) const {
  EXPECT_TRUE(run(fmt::format("ip -n {}lan link set host{} down", prefix_, host)));
}

void Network::connect(int host) const {
  EXPECT_TRUE(run(fmt::format("ip -n {}lan link set host{} up", prefix_, host)));
}

void Network::slow(int host, const std::string& rate) const {
  const std::string what = rate.empty()
                               ? "del dev {} root"
                               : fmt::format("replace dev {{}} root tbf rate {} burst 32kb latency 100ms", rate);
  const auto set = [&](const std::string& where, const std::string& device) {
    EXPECT_TRUE(run(fmt::format("tc -n {} qdisc {}", where, fmt::format(fmt::runtime(what), device))));
  };
  set(name(host), "lan");
  set(prefix_ + "lan", fmt::format("host{}", host));
}

Network::Hidden::Hidden(const std::filesystem::path& directory)
    : work_(std::filesystem::current_path()), before_(open("/proc/thread-self/ns/mnt", O_RDONLY | O_CLOEXEC)) {
  EXPECT_EQ(unshare(CLONE_NEWNS), 0);
  EXPECT_EQ(mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  EXPECT_EQ(mount("none", directory.c_str(), "tmpfs", 0, nullptr), 0);
}

Network::Hidden::~Hidden() {
  EXPECT_EQ(setns(before_.get(), CLONE_NEWNS), 0);
  EXPECT_EQ(chdir(work_.c_str()), 0);  // a change of namespace leads to its root
}

Network::On::On(const Network& network, int host) : before_(namespace_at("/proc/thread-self/ns/net")) {
  const Descriptor there = namespace_at("/run/netns/" + network.name(host));
  EXPECT_EQ(setns(there.get(), CLONE_NEWNET), 0);
}

Network::On::~On() {
  EXPECT_EQ(setns(before_.get(), CLONE_NEWNET), 0);
}

}  // namespace lorikeet::tests
