#include "launcher/http_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "tests/launcher/process.h"

namespace lorikeet::launcher {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class HttpFlagsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    unsetenv("LORIKEET_API_KEY");
    unsetenv("VLLM_API_KEY");
  }
  void TearDown() override { SetUp(); }

  static Result<actors::HttpDoorOptions> parse(std::vector<std::string> arguments) {
    CLI::App app;
    HttpFlags flags;
    add_http_flags(app, flags);
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
    app.parse(arguments);
    return resolve(flags);
  }
};

TEST_F(HttpFlagsTest, OpenADoorOnLoopbackByDefault) {
  const auto door = parse({}).value();
  EXPECT_EQ(door.host, "127.0.0.1");
  EXPECT_EQ(door.port, 8000);
  EXPECT_TRUE(door.api_keys.empty());
  EXPECT_EQ(parse({"--no-http"}).value().port, -1);
  EXPECT_EQ(parse({"--port", "0"}).value().port, 0);
}

TEST_F(HttpFlagsTest, LetNobodyInFromOutsideWithoutAKeyUnlessToldTo) {
  EXPECT_THAT(parse({"--host", "0.0.0.0"}).error().message, HasSubstr("--allow-unauthenticated"));
  EXPECT_TRUE(parse({"--host", "0.0.0.0", "--allow-unauthenticated"}));
  EXPECT_TRUE(parse({"--host", "0.0.0.0", "--api-key", "k"}));
  for (const char* own : {"localhost", "127.0.0.2", "::1"}) EXPECT_TRUE(parse({"--host", own})) << own;
}

TEST_F(HttpFlagsTest, TakeKeysFromFlagsFileAndEnvironment) {
  tests::ScratchDirectory scratch;
  const std::string file = (scratch / "keys").string();
  tests::write_file(file, "# ours\nthird\n\n  fourth \r\n");
  EXPECT_THAT(parse({"--api-key", "first", "second", "--api-key-file", file}).value().api_keys,
              ElementsAre("first", "second", "third", "fourth"));
  setenv("VLLM_API_KEY", "theirs", 1);
  EXPECT_THAT(parse({}).value().api_keys, ElementsAre("theirs"));
  setenv("LORIKEET_API_KEY", "ours", 1);
  EXPECT_THAT(parse({}).value().api_keys, ElementsAre("ours"));
  EXPECT_THAT(parse({"--api-key", "flag"}).value().api_keys, ElementsAre("flag"));
}

TEST_F(HttpFlagsTest, RefuseWhatCannotBeMeant) {
  tests::ScratchDirectory scratch;
  tests::write_file(scratch / "empty", "# nothing\n");
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"--api-key-file", "/nowhere"}, "/nowhere: it cannot be read"},
      {{"--api-key-file", (scratch / "empty").string()}, "there is no key in it"},
      {{"--api-key", "a b"}, "visible ASCII"},
      {{"--api-key", ""}, "visible ASCII"},
      {{"--ssl-keyfile", "k"}, "go together"},
      {{"--ssl-cert-reqs", "2"}, "need --ssl-certfile"},
      {{"--root-path", "x"}, "begins with /"},
      {{"--root-path", "/x/"}, "does not end with one"},
  };
  for (const auto& [arguments, sentence] : cases) {
    const auto door = parse(arguments);
    ASSERT_FALSE(door) << sentence;
    EXPECT_THAT(door.error().message, HasSubstr(sentence));
  }
  EXPECT_THROW(parse({"--port", "65536"}), CLI::ParseError);
}

TEST_F(HttpFlagsTest, SayWhatIsLogged) {
  const auto parse_log = [](std::vector<std::string> arguments) {
    CLI::App app;
    actors::LogOptions options;
    add_log_flags(app, options);
    std::reverse(arguments.begin(), arguments.end());
    app.parse(arguments);
    return options;
  };
  EXPECT_EQ(parse_log({}).level, "info");
  EXPECT_TRUE(parse_log({}).requests);
  EXPECT_EQ(parse_log({"--log-level", "WARNING"}).level, "warning");
  EXPECT_FALSE(parse_log({"--disable-log-requests"}).requests);
  EXPECT_TRUE(parse_log({"--log-json"}).json);
  EXPECT_THROW(parse_log({"--log-level", "loud"}), CLI::ParseError);
}

TEST_F(HttpFlagsTest, AreRefusedWhereThereIsNoDoor) {
  CLI::App app;
  ForeignFlags given;
  refuse_http_flags(app, given);
  std::vector<std::string> arguments = {"80", "--port"};
  app.parse(arguments);
  EXPECT_THAT(given.refused, ElementsAre(HasSubstr("--port: this command opens no HTTP door")));
}

}  // namespace
}  // namespace lorikeet::launcher
