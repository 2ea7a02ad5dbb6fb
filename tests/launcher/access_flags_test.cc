#include "launcher/access_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>

#include "comm/client/curve_keys.h"
#include "tests/launcher/process.h"

namespace lorikeet::launcher {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kCurve = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";

class AccessFlagsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    unsetenv("LORIKEET_API_KEY");
    unsetenv("VLLM_API_KEY");
  }
  void TearDown() override { SetUp(); }

  Result<actors::AccessOptions> parse(std::vector<std::string> arguments) {
    CLI::App app;
    flags_ = AccessFlags();
    add_access_flags(app, flags_);
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
    app.parse(arguments);
    return resolve(flags_, http_host_, zmq_address_);
  }

  static std::vector<std::string> keys(const Result<actors::AccessOptions>& access) {
    std::vector<std::string> keys;
    for (const auto& credential : access.value().credentials) keys.push_back(credential.key);
    return keys;
  }

  std::string file(const std::string& name, const std::string& text) const {
    tests::write_file(scratch_ / name, text);
    return (scratch_ / name).string();
  }

  tests::TempDir scratch_;
  AccessFlags flags_;  // of the last parse
  std::string http_host_ = "127.0.0.1", zmq_address_ = "tcp://127.0.0.1:5555";
};

TEST_F(AccessFlagsTest, LetNobodyInFromOutsideWithoutAKeyUnlessToldTo) {
  EXPECT_TRUE(parse({}).value().credentials.empty());
  http_host_ = "0.0.0.0";
  EXPECT_THAT(parse({}).error().message, HasSubstr("--allow-unauthenticated"));
  EXPECT_TRUE(parse({"--allow-unauthenticated"}));
  EXPECT_TRUE(parse({"--api-key", "k"}));
  for (const char* own : {"localhost", "127.0.0.2", "::1"}) {
    http_host_ = own;
    EXPECT_TRUE(parse({})) << own;
  }
}

TEST_F(AccessFlagsTest, LetNobodyReachZmqFromOutsideWithoutAKeyUnlessToldTo) {
  for (const char* own : {"tcp://127.0.0.1:0", "tcp://localhost:1", "tcp://[::1]:1", "tcp://lo:1", "ipc:///tmp/x"}) {
    zmq_address_ = own;
    EXPECT_TRUE(parse({})) << own;
  }
  const std::string pair = (scratch_ / "pair").string();
  ASSERT_TRUE(comm::write_curve_keys(pair, comm::make_curve_keys().value()));
  const std::string clients = file("clients", std::string(kCurve) + "\n");
  for (const char* reached :
       {"tcp://*:5555", "tcp://0.0.0.0:5555", "tcp://[::]:5555", "tcp://10.0.0.1:1", "tcp://eth0:1"}) {
    zmq_address_ = reached;
    EXPECT_THAT(parse({}).error().message, HasSubstr("others could reach it")) << reached;
    EXPECT_FALSE(parse({"--api-key", "k"})) << "ZeroMQ does not ask for it: " << reached;
    EXPECT_TRUE(parse({"--api-key", "k", "--zmq-plain"})) << reached;
    EXPECT_TRUE(parse({"--zmq-curve-key", pair, "--zmq-curve-clients", clients})) << reached;
    EXPECT_TRUE(parse({"--allow-unauthenticated"})) << reached;
  }
}

TEST_F(AccessFlagsTest, WarnOfKeysThatZmqDoesNotAskFor) {
  const auto warning = [this](const std::vector<std::string>& arguments) {
    const auto access = parse(arguments);
    return way_round_keys(flags_, access.value(), zmq_address_);
  };
  EXPECT_EQ(warning({}), "") << "there are no keys";
  EXPECT_THAT(warning({"--api-key", "k"}), HasSubstr("ZeroMQ at tcp://127.0.0.1:5555 asks for no key"));
  EXPECT_EQ(warning({"--api-key", "k", "--zmq-plain"}), "");
  EXPECT_EQ(warning({"--api-key", "k", "--allow-unauthenticated"}), "") << "it was said that everybody may";
  zmq_address_ = "ipc:///tmp/x";
  EXPECT_THAT(warning({"--api-key-file", file("keys", R"({"keys": [{"key": "k", "tenant": "acme"}]})")}),
              HasSubstr("ZeroMQ at ipc:///tmp/x asks for no key"));
  const std::string pair = (scratch_ / "pair").string();
  ASSERT_TRUE(comm::write_curve_keys(pair, comm::make_curve_keys().value()));
  EXPECT_EQ(warning({"--api-key", "k", "--zmq-curve-key", pair, "--zmq-curve-clients", file("clients", kCurve)}), "");
}

TEST_F(AccessFlagsTest, TakeKeysFromFlagsFileAndEnvironment) {
  const std::string lines = file("keys", "# ours\nthird\n\n  fourth \r\n");
  EXPECT_THAT(keys(parse({"--api-key", "first", "second", "--api-key-file", lines})),
              ElementsAre("first", "second", "third", "fourth"));
  setenv("VLLM_API_KEY", "theirs", 1);
  EXPECT_THAT(keys(parse({})), ElementsAre("theirs"));
  setenv("LORIKEET_API_KEY", "ours", 1);
  EXPECT_THAT(keys(parse({})), ElementsAre("ours"));
  EXPECT_THAT(keys(parse({"--api-key", "flag"})), ElementsAre("flag"));
}

TEST_F(AccessFlagsTest, ReadTenantsAdaptersAndLimitsFromAKeyFile) {
  const std::string path = file("keys.json", R"( {"keys": [
      {"key": "sk-1", "tenant": "acme", "adapters": ["moby", "kjv"]},
      {"key": "sk-2", "admin": true},
      {"key": "sk-3", "adapters": []}],
    "tenants": {"acme": {"requests_per_minute": 600, "tokens_in_flight": 20000}}})");
  const auto access = parse({"--api-key-file", path}).value();
  ASSERT_EQ(access.credentials.size(), 3u);
  EXPECT_EQ(access.credentials[0].tenant, "acme");
  EXPECT_FALSE(access.credentials[0].all_adapters);
  EXPECT_THAT(access.credentials[0].adapters, ElementsAre("moby", "kjv"));
  EXPECT_FALSE(access.credentials[0].admin);
  EXPECT_EQ(access.credentials[1].tenant, "default");
  EXPECT_TRUE(access.credentials[1].all_adapters);
  EXPECT_TRUE(access.credentials[1].admin);
  EXPECT_FALSE(access.credentials[2].all_adapters) << "the base model alone";
  ASSERT_EQ(access.tenants.size(), 1u);
  EXPECT_EQ(access.tenants[0].name, "acme");
  EXPECT_EQ(access.tenants[0].requests_per_minute, 600);
  EXPECT_EQ(access.tenants[0].tokens_in_flight, 20000);
}

TEST_F(AccessFlagsTest, ReadTheServersPairAndItsClientsKeys) {
  const std::string pair = (scratch_ / "pair").string();
  const auto made = comm::make_curve_keys().value();
  ASSERT_TRUE(comm::write_curve_keys(pair, made));
  struct stat about {};
  ASSERT_EQ(stat(pair.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0600u);
  EXPECT_THAT(comm::write_curve_keys(pair, made).error().message, HasSubstr("exists"));
  const std::string other = comm::make_curve_keys().value().public_key;
  const std::string clients = file("clients", "# theirs\n" + std::string(kCurve) + "\n " + other + "  acme\n");
  const auto access = parse({"--zmq-curve-key", pair, "--zmq-curve-clients", clients}).value();
  EXPECT_EQ(access.zmq_mechanism, "curve");
  EXPECT_EQ(access.zmq_secret_key, made.secret_key);
  ASSERT_EQ(access.credentials.size(), 2u);
  EXPECT_EQ(access.credentials[0].curve_public_key, kCurve);
  EXPECT_EQ(access.credentials[0].tenant, kCurve) << "without a name a tenant is its key";
  EXPECT_EQ(access.credentials[1].curve_public_key, other);
  EXPECT_EQ(access.credentials[1].tenant, "acme");
}

TEST_F(AccessFlagsTest, RefuseWhatCannotBeMeant) {
  const std::string pair = (scratch_ / "pair").string();
  ASSERT_TRUE(comm::write_curve_keys(pair, comm::make_curve_keys().value()));
  auto in_json = [this, n = 0](const std::string& text) mutable {
    return std::vector<std::string>{"--api-key-file", file("json" + std::to_string(++n), text)};
  };
  std::string mixed = "public-key = \"" + std::string(kCurve) + "\"\nsecret-key = \"" +
                      comm::make_curve_keys().value().secret_key + "\"\n";
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"--api-key-file", "/nowhere"}, "/nowhere: it cannot be read"},
      {{"--api-key-file", file("empty", "# nothing\n")}, "there is no key in it"},
      {{"--api-key-file", file("blank", "a b\n")}, "visible ASCII"},
      {{"--api-key", "a b"}, "visible ASCII"},
      {{"--api-key", ""}, "visible ASCII"},
      {{"--api-key", "twice", "twice"}, "given twice"},
      {in_json("{"), "no JSON object"},
      {in_json(R"({"keys": {}})"), "no JSON object"},
      {in_json(R"({"keys": []})"), "there is no key in it"},
      {in_json(R"({"keys": [{"key": "k"}], "limits": 1})"), "no field \"limits\""},
      {in_json(R"({"keys": ["k"]})"), "keys[0]: it must be an object"},
      {in_json(R"({"keys": [{"key": "k"}, {"tenant": "t"}]})"), "keys[1]: one of key and curve_public_key"},
      {in_json(R"({"keys": [{"key": "k", "quota": 1}]})"), "no field \"quota\""},
      {in_json(R"({"keys": [{"key": "a b"}]})"), "visible ASCII"},
      {in_json(R"({"keys": [{"key": "k", "tenant": ""}]})"), "tenant must be"},
      {in_json(R"({"keys": [{"key": "k", "adapters": "moby"}]})"), "adapters must be a list"},
      {in_json(R"({"keys": [{"key": "k", "admin": 1}]})"), "admin must be"},
      {in_json(R"({"keys": [{"curve_public_key": "short"}]})"), "40 characters"},
      {in_json(R"({"keys": [{"key": "k"}], "tenants": {"t": {"requests_per_minute": -1}}})"), "requests_per_minute"},
      {in_json(R"({"keys": [{"key": "k"}], "tenants": {"t": {"tokens_in_flight": 1.5}}})"), "tokens_in_flight"},
      {in_json(R"({"keys": [{"key": "k"}], "tenants": {"t": {"tokens": 1}}})"), "no field \"tokens\""},
      {{"--zmq-plain"}, "needs --api-key"},
      {{"--zmq-plain", "--api-key", "k", "--zmq-curve-key", pair}, "exclude each other"},
      {{"--zmq-curve-key", pair}, "needs the clients' public keys"},
      {{"--zmq-curve-clients", file("one", kCurve)}, "need --zmq-curve-key"},
      {{"--zmq-curve-clients", file("short", "abc acme\n")}, "40 characters"},
      {{"--zmq-curve-clients", file("two", kCurve), "--zmq-curve-key", "/nowhere"}, "/nowhere: it cannot be read"},
      {{"--zmq-curve-clients", file("three", kCurve), "--zmq-curve-key", file("no", "x")}, "no public-key"},
      {{"--zmq-curve-clients", file("four", kCurve), "--zmq-curve-key", file("mixed", mixed)}, "no pair"},
      {{"--zmq-curve-clients", file("five", kCurve), "--zmq-curve-key",
        file("half", "public-key = \"" + std::string(kCurve) + "\"\n")},
       "no secret key"},
  };
  for (const auto& [arguments, sentence] : cases) {
    const auto access = parse(arguments);
    ASSERT_FALSE(access) << sentence;
    EXPECT_THAT(access.error().message, HasSubstr(sentence));
  }
}

}  // namespace
}  // namespace lorikeet::launcher
