#include "launcher/cluster_flags.h"

#include <gtest/gtest.h>

#include "launcher/version.h"

namespace lorikeet::launcher {
namespace {

using Address = std::pair<std::string, uint16_t>;

TEST(JoinAddress, IsAHostWithOrWithoutAPort) {
  EXPECT_EQ(*parse_join_address("gpu1:29600"), Address("gpu1", 29600));
  EXPECT_EQ(*parse_join_address("gpu1"), Address("gpu1", 29501));
  EXPECT_EQ(*parse_join_address("[fd00::1]:29600"), Address("fd00::1", 29600));
  EXPECT_EQ(*parse_join_address("[fd00::1]"), Address("fd00::1", 29501));
  EXPECT_EQ(*parse_join_address("fd00::1"), Address("fd00::1", 29501));
  for (const char* text : {"", ":29501", "gpu1:", "gpu1:0", "gpu1:65536", "gpu1:x", "gpu1:-1", "[fd00::1]:"}) {
    EXPECT_FALSE(parse_join_address(text)) << text;
  }
}

TEST(LentDevices, AreDescribedWithModelMemoryAndLinks) {
  const std::vector<CudaDevice> all = {{"A", 5, {0, 2, 1}}, {"B", 6, {2, 0, 0}}, {"A", 7, {1, 0, 0}}};
  actors::HostDevices lent;
  lent.numbers = {2, 0};
  describe(all, lent);
  EXPECT_EQ(lent.model, "A");
  EXPECT_EQ(lent.memory_bytes, (std::vector<uint64_t>{7, 5}));
  using actors::DeviceLink;
  EXPECT_EQ(lent.links,
            (std::vector<DeviceLink>{DeviceLink::host, DeviceLink::pcie, DeviceLink::pcie, DeviceLink::host}));
  actors::HostDevices mixed;
  mixed.numbers = {0, 1};
  describe(all, mixed);
  EXPECT_EQ(mixed.model, "A, B");
  EXPECT_EQ(mixed.links[1], DeviceLink::nvlink);
}

TEST(LentDevices, OfTheCpuAreOneUnlessTheyAreCounted) {
  EXPECT_EQ(lent_devices("cpu", "all")->numbers, std::vector<int32_t>{0});
  EXPECT_EQ(lent_devices("cpu", "none")->numbers, std::vector<int32_t>{});
  EXPECT_EQ(lent_devices("cpu", "0,1,5")->numbers, (std::vector<int32_t>{0, 1, 5}));
  for (const char* text : {"", "0,", ",0", "0,0", "-1", "64", "a", "0;1", "All"}) {
    EXPECT_FALSE(lent_devices("cpu", text)) << text;
  }
  EXPECT_EQ(lent_devices("cuda", "none")->kind, "cuda") << "a host that lends none needs none";
}

Result<actors::ClusterOptions> parse(const std::string& arguments) {
  ClusterFlags flags;
  CLI::App app;
  add_cluster_flags(app, flags);
  try {
    app.parse(arguments);
  } catch (const CLI::Error& error) {
    return fail("{}", error.what());
  }
  return resolve(flags, "cpu");
}

TEST(ClusterFlags, MakeOneHostWithoutThem) {
  const auto options = parse("");
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_EQ(options->nnodes, 1);
}

TEST(ClusterFlags, MakeAClusterOfWhatTheySay) {
  const auto options = parse(
      "--nnodes 3 --cluster-dir /c --master-addr 10.0.0.1 --master-port 0 --devices 0,1 --interface eth1 "
      "--mixed-devices "
      "--join-timeout 5");
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_EQ(options->nnodes, 3);
  EXPECT_EQ(options->directory, "/c");
  EXPECT_EQ(options->master_addr, "10.0.0.1");
  EXPECT_EQ(options->master_port, 0);
  EXPECT_EQ(options->devices.numbers.size(), 2U);
  EXPECT_EQ(options->interface_name, "eth1");
  EXPECT_TRUE(options->mixed_devices);
  EXPECT_EQ(options->join_timeout, std::chrono::seconds(5));
  EXPECT_EQ(options->version, kVersion);
}

TEST(ClusterFlags, SayWhatIsMissing) {
  EXPECT_NE(parse("--nnodes 2").error().message.find("--cluster-dir"), std::string::npos);
  EXPECT_NE(parse("--dry-run").error().message.find("--nnodes"), std::string::npos);
  EXPECT_NE(parse("--nnodes 2 --cluster-dir /c --devices x").error().message.find("--devices x"), std::string::npos);
  EXPECT_FALSE(parse("--nnodes 0"));
}

}  // namespace
}  // namespace lorikeet::launcher
