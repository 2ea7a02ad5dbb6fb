#include "comm/cluster/keys.h"

#include <sys/stat.h>

#include <fstream>

#include "comm/cluster/interfaces.h"
#include "tests/comm/cluster/cluster_hosts.h"

namespace lorikeet::tests {
namespace {

TEST(ClusterKeys, AreReadableForTheirOwnerAlone) {
  const ClusterKeys keys;
  for (const char* name : {"ca-key.pem", "head/key.pem", "head/token", "worker/key.pem", "worker/token"}) {
    struct stat about = {};
    ASSERT_EQ(stat((keys / name).c_str(), &about), 0) << name;
    EXPECT_EQ(about.st_mode & 0777, 0600U) << name;
  }
  EXPECT_FALSE(std::filesystem::exists(keys / "head/ca-key.pem")) << "it stays where it was made";
  EXPECT_EQ(*comm::read_join_token(keys / "head/token"), keys.token());
}

TEST(ClusterKeys, ReplaceNothing) {
  const ClusterKeys keys;
  const auto again = comm::make_cluster_keys(keys / "", 30);
  ASSERT_FALSE(again);
  EXPECT_NE(again.error().message.find("already"), std::string::npos);
  ASSERT_TRUE(comm::add_worker_keys(keys / "", "a", 30));
  EXPECT_FALSE(comm::add_worker_keys(keys / "", "a", 30));
  EXPECT_FALSE(comm::add_worker_keys(keys / "", "../a", 30));
  EXPECT_FALSE(comm::add_worker_keys(keys / "worker", "a", 30)) << "there is no authority";
}

TEST(ClusterKeys, NameTheFileThatIsWrong) {
  const ClusterKeys keys;
  std::ofstream(keys / "head/key.pem") << "rubbish";
  const auto loaded = comm::TlsContext::load(keys / "head", comm::ClusterRole::head);
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message.find("key.pem"), std::string::npos) << loaded.error().message;
  EXPECT_FALSE(comm::TlsContext::load(keys / "nowhere", comm::ClusterRole::head));
}

TEST(JoinToken, IsOneLineOfVisibleCharacters) {
  const ClusterKeys keys;
  const auto with = [&](const std::string& text) {
    std::ofstream(keys / "token") << text;
    return comm::read_join_token(keys / "token");
  };
  EXPECT_EQ(*with("0123456789abcdef"), "0123456789abcdef");
  EXPECT_EQ(*with("0123456789abcdef\nanother line\n"), "0123456789abcdef");
  EXPECT_FALSE(with("0123456789abcde"));
  EXPECT_FALSE(with("0123456789 abcdef"));
  EXPECT_FALSE(with(std::string(2000, 'x')));
  EXPECT_FALSE(comm::read_join_token(keys / "none"));
}

TEST(Interfaces, AreFoundByNameAndByAddress) {
  const auto address = comm::address_of_interface("lo");
  ASSERT_TRUE(address) << address.error().message;
  EXPECT_EQ(*address, "127.0.0.1");
  EXPECT_EQ(comm::interface_with(*address), "lo");
  EXPECT_EQ(comm::interface_with("192.0.2.1"), "");
  EXPECT_FALSE(comm::address_of_interface("nosuch0"));
}

}  // namespace
}  // namespace lorikeet::tests
