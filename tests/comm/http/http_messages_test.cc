#include "comm/http/http_messages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorikeet::comm {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

TEST(HttpMessages, WriteAHeadWithTheFramingOfTheBody) {
  const HttpAnswer answer{404, {{"Content-Type", "text/plain"}}, "nothing"};
  EXPECT_THAT(http_head_text(answer, HttpFraming::length, true),
              MatchesRegex("HTTP/1.1 404 Not Found\r\nDate: [A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} "
                           "[0-9:]{8} GMT\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n"
                           "Connection: keep-alive\r\n\r\n"));
  EXPECT_THAT(http_head_text(answer, HttpFraming::chunked, true), HasSubstr("\r\nTransfer-Encoding: chunked\r\n"));
  const std::string until_close = http_head_text(answer, HttpFraming::until_close, false);
  EXPECT_THAT(until_close, HasSubstr("\r\nConnection: close\r\n\r\n"));
  EXPECT_THAT(until_close, Not(HasSubstr("Content-Length")));
}

TEST(HttpMessages, LetNoHeaderValueBeginAnother) {
  const HttpAnswer answer{200, {{"X-Request-Id", "a\r\nSet-Cookie: b"}}, ""};
  EXPECT_THAT(http_head_text(answer, HttpFraming::length, true), HasSubstr("\r\nX-Request-Id: a  Set-Cookie: b\r\n"));
}

TEST(HttpMessages, WriteChunksInHexadecimal) {
  EXPECT_EQ(http_chunk("0123456789abcdef!"), "11\r\n0123456789abcdef!\r\n");
}

TEST(HttpMessages, FindThePathOfATarget) {
  const std::pair<const char*, const char*> cases[] = {{"/a/b?c=/d", "/a/b"},       {"/", "/"},
                                                       {"http://host:1/x?y", "/x"}, {"http://host", "/"},
                                                       {"/x://y", "/x://y"},        {"*", "*"}};
  for (const auto& [target, path] : cases) {
    HttpRequest request;
    request.target = target;
    EXPECT_EQ(request.path(), path);
  }
}

}  // namespace
}  // namespace lorikeet::comm
