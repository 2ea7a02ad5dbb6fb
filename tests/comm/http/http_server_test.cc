// The server over raw sockets on loopback.
#include "comm/http/http_server.h"

#include <gmock/gmock.h>

#include "tests/comm/http/http_fixture.h"

namespace lorikeet::tests {
namespace {

using comm::HttpAnswer;
using comm::HttpRequest;
using comm::HttpServer;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class HttpServerTest : public HttpFixture {};

HttpAnswer text_answer(std::string body, int status = 200) {
  return {status, {{"Content-Type", "text/plain"}}, std::move(body)};
}

TEST_F(HttpServerTest, AnswersOneRequestAfterTheOtherOnOneConnection) {
  serve();
  RawClient client(server_->port());
  for (int i = 0; i < 3; ++i) {
    client.send(post("/echo", "body " + std::to_string(i)));
    const Came came = next_request();
    EXPECT_EQ(came.request.method, "POST");
    EXPECT_EQ(came.request.path(), "/echo");
    EXPECT_THAT(came.request.peer, StartsWith("127.0.0.1:"));
    server_->answer(came.id, text_answer(came.request.body + "!"));
    const std::string& answer = client.read_until("!");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
    EXPECT_EQ(body_of(answer), "body " + std::to_string(i) + "!");
    client.forget();
  }
  EXPECT_EQ(server_->connections(), 1u);
}

TEST_F(HttpServerTest, AnswersRequestsThatWereSentAheadInTheirOrder) {
  serve();
  RawClient client(server_->port());
  client.send(get("/1") + get("/2") + get("/3"));
  for (const char* path : {"/1", "/2", "/3"}) {
    const Came came = next_request();
    EXPECT_EQ(came.request.path(), path);
    EXPECT_TRUE(none_came());  // the next comes when this is answered
    server_->answer(came.id, text_answer("answer to " + std::string(path)));
    EXPECT_THAT(client.read_until("answer to " + std::string(path)), HasSubstr("200 OK"));
  }
}

TEST_F(HttpServerTest, SendsAnAnswerInPiecesAsTheyCome) {
  serve();
  RawClient client(server_->port());
  client.send(get("/stream"));
  const Came came = next_request();
  server_->begin(came.id, {200, {{"Content-Type", "text/event-stream"}}, ""});
  EXPECT_THAT(client.read_until("\r\n\r\n"), HasSubstr("\r\nTransfer-Encoding: chunked\r\n"));
  server_->write(came.id, "data: 1\n\n");
  EXPECT_THAT(client.read_until("data: 1\n\n\r\n"), HasSubstr("\r\n9\r\ndata: 1\n\n\r\n"));
  server_->write(came.id, "data: 2\n\n");
  server_->end(came.id);
  EXPECT_EQ(body_of(client.read_until("\r\n0\r\n\r\n")), "data: 1\n\ndata: 2\n\n");
  client.forget();
  client.send(get("/next"));  // the connection lives on
  server_->answer(next_request().id, text_answer("next"));
  EXPECT_THAT(client.read_until("next"), HasSubstr("200 OK"));
}

TEST_F(HttpServerTest, EndsAStreamToAnOldClientWithTheConnection) {
  serve();
  RawClient client(server_->port());
  client.send("GET /stream HTTP/1.0\r\n\r\n");
  const Came came = next_request();
  server_->begin(came.id, text_answer("first "));
  server_->write(came.id, "second");
  server_->end(came.id);
  const std::string& answer = client.read_to_end();
  EXPECT_THAT(answer, Not(HasSubstr("chunked")));
  EXPECT_EQ(body_of(answer), "first second");
}

TEST_F(HttpServerTest, LeavesTheBodyOutForHead) {
  serve();
  RawClient client(server_->port());
  client.send("HEAD /a HTTP/1.1\r\nHost: test\r\n\r\n");
  server_->answer(next_request().id, text_answer("unseen"));
  client.send(get("/b"));
  server_->answer(next_request().id, text_answer("seen"));
  const std::string& answers = client.read_until("\r\n\r\nseen");
  EXPECT_THAT(answers, HasSubstr("Content-Length: 6\r\n"));
  EXPECT_THAT(answers, Not(HasSubstr("unseen")));
}

TEST_F(HttpServerTest, ClosesWhereTheClientAsksForIt) {
  serve();
  RawClient client(server_->port());
  client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
  server_->answer(next_request().id, text_answer("bye"));
  const std::string& answer = client.read_to_end();
  EXPECT_TRUE(client.ended());
  EXPECT_THAT(answer, HasSubstr("\r\nConnection: close\r\n"));
  EXPECT_EQ(body_of(answer), "bye");
}

TEST_F(HttpServerTest, TellsAClientThatWaitsToGoOn) {
  serve();
  RawClient client(server_->port());
  client.send("POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("body");
  EXPECT_EQ(next_request().request.body, "body");
}

TEST_F(HttpServerTest, RefusesByTheHeadBeforeTheBodyIsRead) {
  on_head_ = [](const HttpRequest& head) -> std::optional<HttpAnswer> {
    if (head.header("authorization") == "yes") return std::nullopt;
    return text_answer("no", 401);
  };
  serve();
  RawClient client(server_->port());
  client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n");
  const std::string& answer = client.read_to_end();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 401 Unauthorized\r\n"));
  EXPECT_EQ(body_of(answer), "no");
  EXPECT_TRUE(none_came());

  RawClient other(server_->port());
  other.send(get("/"));  // without a body the connection can go on
  EXPECT_THAT(other.read_until("no"), HasSubstr("Connection: keep-alive"));
  other.forget();
  other.send("GET / HTTP/1.1\r\nHost: test\r\nAuthorization: yes\r\n\r\n");
  server_->answer(next_request().id, text_answer("welcome"));
  EXPECT_EQ(body_of(other.read_until("welcome")), "welcome");
}

TEST_F(HttpServerTest, RefusesWhatCannotBeReadAndEndsTheConnection) {
  options_.max_body_bytes = 1000;
  serve();
  const std::pair<std::string, const char*> cases[] = {
      {"\x16\x03\x01\x02\x01 TLS", "400"},
      {"GET / HTTP/1.1\nHost: a\n\n", "400"},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400"},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501"},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", "413"},
      {"GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(40000, 'x') + "\r\n\r\n", "431"},
  };
  for (const auto& [bytes, status] : cases) {
    SCOPED_TRACE(bytes.substr(0, 100));
    RawClient client(server_->port());
    client.send(bytes + get("/smuggled"));
    EXPECT_THAT(client.read_to_end(), StartsWith("HTTP/1.1 " + std::string(status)));
    EXPECT_TRUE(client.ended());
  }
  EXPECT_TRUE(none_came());
}

TEST_F(HttpServerTest, NoticesAClientThatGoesAwayInTheMiddleOfItsAnswer) {
  serve();
  RawClient leaves(server_->port()), resets(server_->port()), closes(server_->port());
  leaves.send(get("/leaves"));
  const Came first = next_request();
  server_->begin(first.id, text_answer("started"));
  leaves.read_until("started");
  leaves.end_sending();
  EXPECT_EQ(next_gone(), first.id);

  resets.send(get("/resets"));
  const Came second = next_request();
  resets.reset();
  EXPECT_EQ(next_gone(), second.id);
  server_->answer(second.id, text_answer("nobody reads this"));

  closes.send(get("/stays"));  // others are not held up
  server_->answer(next_request().id, text_answer("still here"));
  EXPECT_THAT(closes.read_until("still here"), HasSubstr("200 OK"));
}

TEST_F(HttpServerTest, DropsAClientThatDoesNotReadItsStream) {
  options_.max_pending_bytes = 1 << 20;
  serve();
  RawClient slow(server_->port(), 4096);
  slow.send(get("/slow"));
  const Came came = next_request();
  server_->begin(came.id, text_answer(""));
  // More than the kernels' buffers and the bound together.
  for (int i = 0; i < 64; ++i) server_->write(came.id, std::string(1 << 20, 'x'));
  EXPECT_EQ(next_gone(), came.id);
}

TEST_F(HttpServerTest, DropsAClientThatTakesNothingForTooLong) {
  options_.write_timeout = std::chrono::milliseconds(100);
  serve();
  RawClient slow(server_->port(), 4096);
  slow.send(get("/slow"));
  const Came came = next_request();
  server_->begin(came.id, text_answer(""));
  for (int i = 0; i < 7; ++i) server_->write(came.id, std::string(1 << 20, 'x'));  // below the bound of what waits
  EXPECT_EQ(next_gone(), came.id);
}

TEST_F(HttpServerTest, GivesUpOnHeadsAndBodiesThatDoNotCome) {
  options_.head_timeout = options_.body_timeout = std::chrono::milliseconds(100);
  serve();
  RawClient silent(server_->port()), in_the_head(server_->port()), in_the_body(server_->port());
  in_the_head.send("GET / HTTP/1.1\r\nHost: ");
  in_the_body.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
  EXPECT_EQ(silent.read_to_end(), "");
  EXPECT_THAT(in_the_head.read_to_end(), StartsWith("HTTP/1.1 408"));
  EXPECT_THAT(in_the_body.read_to_end(), StartsWith("HTTP/1.1 408"));
  EXPECT_TRUE(silent.ended() && in_the_head.ended() && in_the_body.ended());
}

TEST_F(HttpServerTest, ClosesAConnectionThatRestsForTooLong) {
  options_.idle_timeout = std::chrono::milliseconds(100);
  serve();
  RawClient client(server_->port());
  client.send(get("/"));
  server_->answer(next_request().id, text_answer("once"));
  EXPECT_EQ(body_of(client.read_to_end()), "once");
  EXPECT_TRUE(client.ended());
}

TEST_F(HttpServerTest, GivesThePlaceOfOneThatRestsToANewConnection) {
  options_.max_connections = 2;
  serve();
  RawClient rests(server_->port()), works(server_->port());
  rests.send(get("/"));
  server_->answer(next_request().id, text_answer("done"));
  rests.read_until("done");
  works.send(get("/long"));
  const Came longer = next_request();
  RawClient third(server_->port());
  third.send(get("/third"));
  const Came came = next_request();
  EXPECT_EQ(came.request.path(), "/third");
  rests.read_to_end();
  EXPECT_TRUE(rests.ended());

  RawClient fourth(server_->port());  // both places are at work now
  EXPECT_THAT(fourth.read_to_end(), StartsWith("HTTP/1.1 503"));
  server_->answer(longer.id, text_answer("served"));
  EXPECT_THAT(works.read_until("served"), HasSubstr("200 OK"));
}

TEST_F(HttpServerTest, RefusesBodiesThatTogetherTakeTooMuch) {
  options_.max_all_body_bytes = 1500;
  serve();
  RawClient first(server_->port()), second(server_->port());
  first.send(post("/", std::string(1000, 'a')));
  const Came came = next_request();
  second.send(post("/", std::string(1000, 'b')));
  EXPECT_THAT(second.read_to_end(), StartsWith("HTTP/1.1 503"));
  server_->answer(came.id, text_answer("read"));
  first.read_until("read");
  first.send(post("/", std::string(1000, 'c')));  // answered: there is room again
  EXPECT_EQ(next_request().request.body.size(), 1000u);
}

TEST_F(HttpServerTest, SendsWhatWasAnsweredWhenItStops) {
  serve();
  RawClient rests(server_->port()), waits(server_->port());
  waits.send(get("/"));
  const Came came = next_request();
  server_->answer(came.id, text_answer("the last words"));
  server_.reset();
  EXPECT_EQ(body_of(waits.read_to_end()), "the last words");
  EXPECT_EQ(rests.read_to_end(), "");
}

TEST_F(HttpServerTest, SaysWhyItCannotListen) {
  serve();
  comm::HttpServerOptions taken;
  taken.port = server_->port();
  const auto second = HttpServer::start(taken, {});
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message, HasSubstr("the port is in use"));

  comm::HttpServerOptions nowhere;
  nowhere.host = "no such host";
  EXPECT_THAT(HttpServer::start(nowhere, {}).error().message, HasSubstr("there is no such host"));

  comm::HttpServerOptions no_key;
  no_key.port = 0;
  no_key.tls.emplace();
  no_key.tls->certificate_file = "/nowhere.pem";
  EXPECT_THAT(HttpServer::start(no_key, {}).error().message, HasSubstr("/nowhere.pem"));
}

}  // namespace
}  // namespace lorikeet::tests
