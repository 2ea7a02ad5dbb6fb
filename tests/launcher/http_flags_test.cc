#include "launcher/http_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace lorikeet::launcher {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class HttpFlagsTest : public ::testing::Test {
 protected:
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
  EXPECT_EQ(parse({"--no-http"}).value().port, -1);
  EXPECT_EQ(parse({"--port", "0"}).value().port, 0);
}

TEST_F(HttpFlagsTest, RefuseWhatCannotBeMeant) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
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
  EXPECT_TRUE(parse_log({"--enable-log-requests"}).requests);
  EXPECT_FALSE(parse_log({"--no-enable-log-requests"}).requests);
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
