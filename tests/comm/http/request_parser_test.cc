#include "comm/http/request_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorikeet::comm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

struct Parsed {
  bool done = false;
  int status = 0;  // of the refusal
  std::string message, rest;
};

// Gives the bytes `step` at a time, with what was left over in front, as a connection does.
Parsed feed(RequestParser& parser, std::string_view bytes, size_t step) {
  std::string waiting;
  while (true) {
    const auto taken = parser.put(waiting);
    if (!taken) return {false, taken.error().status, taken.error().message, waiting};
    waiting.erase(0, *taken);
    if (parser.done()) return {true, 0, "", waiting + std::string(bytes)};
    if (*taken > 0 && !waiting.empty()) continue;
    if (bytes.empty()) return {false, 0, "", waiting};
    waiting += bytes.substr(0, step);
    bytes.remove_prefix(std::min(step, bytes.size()));
  }
}

const RequestParser::Limits kSmall{256, 6, 32};

TEST(RequestParser, ReadsARequestHoweverItsBytesCome) {
  const std::string bytes =
      "POST /v1/x?y=1 HTTP/1.1\r\nHost: a\r\nX-Name: Some Value \r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n";
  for (size_t step = 1; step <= bytes.size(); ++step) {
    SCOPED_TRACE(step);
    RequestParser parser(kSmall);
    const Parsed parsed = feed(parser, bytes, step);
    ASSERT_TRUE(parsed.done) << parsed.message;
    EXPECT_EQ(parsed.rest, "GET / HTTP/1.1\r\n");
    EXPECT_EQ(parser.request().method, "POST");
    EXPECT_EQ(parser.request().target, "/v1/x?y=1");
    EXPECT_EQ(parser.request().path(), "/v1/x");
    EXPECT_EQ(parser.request().body, "hello");
    EXPECT_THAT(parser.request().headers,
                ElementsAre(Pair("host", "a"), Pair("x-name", "Some Value"), Pair("content-length", "5")));
    EXPECT_EQ(parser.request().header("x-name"), "Some Value");
    EXPECT_TRUE(parser.keep_alive());
  }
}

TEST(RequestParser, EndsTheHeadAtItsEmptyLineWhereverThatIsCut) {
  const std::string bytes = "GET / HTTP/1.1\r\nHost: a\r\n\r\n\nrest";
  for (size_t step = 1; step <= bytes.size(); ++step) {
    SCOPED_TRACE(step);
    RequestParser parser(kSmall);
    const Parsed parsed = feed(parser, bytes, step);
    ASSERT_TRUE(parsed.done) << parsed.message;
    EXPECT_EQ(parsed.rest, "\nrest");
    EXPECT_EQ(parser.request().target, "/");
  }
}

TEST(RequestParser, PutsChunksTogetherAndThrowsTrailersAway) {
  const std::string bytes =
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3;name=\"x\"\r\nabc\r\nA\r\n0123456789\r\n0\r\nAuthorization: Bearer x\r\n\r\nrest";
  for (size_t step = 1; step <= bytes.size(); ++step) {
    SCOPED_TRACE(step);
    RequestParser parser(kSmall);
    const Parsed parsed = feed(parser, bytes, step);
    ASSERT_TRUE(parsed.done) << parsed.message;
    EXPECT_EQ(parsed.rest, "rest");
    EXPECT_EQ(parser.request().body, "abc0123456789");
    EXPECT_EQ(parser.request().header("authorization"), "");
  }
}

TEST(RequestParser, RefusesWhatAnotherServerMightReadInAnotherWay) {
  struct Case {
    const char* bytes;
    int status;
  };
  const Case cases[] = {
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\na", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\na", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\na", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 501},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
      {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"GET / HTTP/1.1\nHost: a\n\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400},
      {"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nExpect: wonders\r\n\r\n", 417},
      {"\x16\x03\x01\x02\x01\x01\x01", 400},
  };
  for (const Case& c : cases) {
    for (const size_t step : {size_t{1}, size_t{1000}}) {
      SCOPED_TRACE(c.bytes);
      RequestParser parser(kSmall);
      const Parsed parsed = feed(parser, c.bytes, step);
      EXPECT_FALSE(parsed.done);
      EXPECT_EQ(parsed.status, c.status) << parsed.message;
    }
  }
}

TEST(RequestParser, HoldsHeadHeadersAndBodyToTheirLimits) {
  const std::string head = "POST / HTTP/1.1\r\nHost: a\r\n";
  struct Case {
    std::string bytes;
    int status;
    const char* sentence;
  };
  std::string many = head;
  for (int i = 0; i < 6; ++i) many += "X: y\r\n";
  std::string trailers = head + "Transfer-Encoding: chunked\r\n\r\n0\r\n";
  for (int i = 0; i < 6; ++i) trailers += "X: y\r\n";
  const Case cases[] = {
      {head + "X: " + std::string(300, 'x') + "\r\n\r\n", 431, "more than 256 bytes"},
      {"GET /" + std::string(300, 'x') + " HTTP/1.1\r\n\r\n", 431, "more than 256 bytes"},
      {head + "A: " + std::string(80, 'x') + "\r\nB: " + std::string(80, 'x') + "\r\nC: " + std::string(80, 'x') +
           "\r\n\r\n",
       431, "more than 256 bytes"},
      {many + "\r\n", 431, "more than 6 headers"},
      {trailers + "\r\n", 431, "more than 6 headers"},
      {head + "Content-Length: 33\r\n\r\n", 413, "more than 32 bytes"},
      {head + "Transfer-Encoding: chunked\r\n\r\n10\r\n0123456789abcdef\r\n11\r\n", 413, "more than 32 bytes"},
  };
  for (const Case& c : cases) {
    for (const size_t step : {size_t{1}, size_t{7}, size_t{1000}}) {
      SCOPED_TRACE(c.bytes);
      RequestParser parser(kSmall);
      const Parsed parsed = feed(parser, c.bytes, step);
      EXPECT_EQ(parsed.status, c.status);
      EXPECT_THAT(parsed.message, HasSubstr(c.sentence));
    }
  }
}

TEST(RequestParser, KnowsWhoWaitsToBeToldToGoOnAndWhoGoesAway) {
  RequestParser waits(kSmall);
  feed(waits, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", 1000);
  EXPECT_TRUE(waits.has_head());
  EXPECT_FALSE(waits.done());
  EXPECT_TRUE(waits.expects_continue());

  RequestParser has_no_body(kSmall);
  feed(has_no_body, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n", 1000);
  EXPECT_TRUE(has_no_body.done());
  EXPECT_FALSE(has_no_body.expects_continue());

  RequestParser closes(kSmall);
  feed(closes, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 1000);
  EXPECT_FALSE(closes.keep_alive());
  EXPECT_FALSE(closes.is_http_1_0());

  RequestParser old(kSmall);
  feed(old, "GET http://a/b?c HTTP/1.0\r\n\r\n", 1000);
  EXPECT_TRUE(old.done());
  EXPECT_TRUE(old.is_http_1_0());
  EXPECT_FALSE(old.keep_alive());
  EXPECT_EQ(old.request().path(), "/b");
}

}  // namespace
}  // namespace lorikeet::comm
