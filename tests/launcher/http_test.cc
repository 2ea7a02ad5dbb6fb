// A whole server through its HTTP door: the same answers as over ZeroMQ and offline, and OpenAI's own client.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <map>
#include <sstream>
#include <thread>

#include "tests/comm/http/raw_client.h"
#include "tests/launcher/served.h"

namespace lorikeet::tests {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// 64 requests with every adapter, each with a seed of its own.
std::vector<json> seeded_requests() {
  const char* adapters[] = {nullptr, "shakespeare", "kjv", "moby"};
  const char* prompts[] = {"It was a cold morning, and", "The captain said", "And it came to pass"};
  std::vector<json> requests;
  for (int i = 0; i < 64; ++i) {
    json request = {{"id", std::to_string(i)},
                    {"prompt", prompts[i % 3]},
                    {"max_tokens", 8 + i % 9},
                    {"seed", 100 + i},
                    {"temperature", 0.7 + 0.01 * i}};
    if (const char* adapter = adapters[i % 4]) request["adapter"] = adapter;
    requests.push_back(std::move(request));
  }
  return requests;
}

// What `lorikeet batch` says to each of them.
std::vector<json> batch_results(const std::vector<json>& requests) {
  TempDir scratch;
  std::string lines;
  for (const json& request : requests) lines += request.dump() + "\n";
  write_file(scratch / "requests.jsonl", lines);
  std::vector<std::string> flags = {"batch", "--input", (scratch / "requests.jsonl").string(), "--output",
                                    (scratch / "results.jsonl").string()};
  flags.insert(flags.end(), example_flags().begin(), example_flags().end());
  const Finished run = run_lorikeet(flags);
  EXPECT_EQ(run.status, 0) << run.err;
  std::map<std::string, json> by_id;
  std::istringstream results(read_file(scratch / "results.jsonl"));
  for (std::string line; std::getline(results, line);) {
    json result = json::parse(line);
    const auto id = result["id"].get<std::string>();  // before the move, which C++ evaluates first
    by_id[id] = std::move(result);
  }
  std::vector<json> ordered;
  for (const json& request : requests) {
    json result = by_id[request["id"].get<std::string>()];
    result["request"] = request;
    ordered.push_back(std::move(result));
  }
  return ordered;
}

comm::GenerateRequest generate_request(const json& line) {
  comm::GenerateRequest request;
  request.prompt = line["prompt"].get<std::string>();
  request.max_tokens = line["max_tokens"].get<int32_t>();
  request.seed = line["seed"].get<uint64_t>();
  request.temperature = line["temperature"].get<double>();
  if (line.contains("adapter")) request.adapter = line["adapter"].get<std::string>();
  return request;
}

TEST(Http, GivesOpenAisClientAndZmqTheTextsOfABatch) {
  const auto results = batch_results(seeded_requests());
  Served server({"--tp", "2", "--max-loras", "8"});
  ASSERT_TRUE(server.ready()) << server.process().err();

  std::vector<comm::GenerateRequest> requests;
  for (const json& result : results) requests.push_back(generate_request(result["request"]));
  const auto answers = server.ask(requests);
  for (size_t i = 0; i < answers.size(); ++i) EXPECT_EQ(answers[i].text, results[i]["text"].get<std::string>()) << i;

  TempDir scratch;
  std::string lines;
  for (const json& result : results) lines += result.dump() + "\n";
  write_file(scratch / "results.jsonl", lines);
  const Finished client = run_python(source_path("tests/launcher/openai_client.py"),
                                     {server.http_url(), (scratch / "results.jsonl").string()});
  EXPECT_EQ(client.status, 0) << client.out << client.err << server.process().err();

  // Whoever went away in the middle of an answer has left nothing behind.
  json status = server.status();
  for (int i = 0; i < 300 && status["live_requests"].get<int>() > 0; ++i) status = server.status();
  EXPECT_EQ(status["live_requests"].get<int>(), 0) << status;
}

TEST(Http, CancelsTheRequestOfAClientThatDisconnects) {
  Served server;
  ASSERT_TRUE(server.ready()) << server.process().err();
  RawClient client(server.http_port());
  client.send(
      post("/v1/completions", R"({"prompt": "The sea", "max_tokens": 1900, "ignore_eos": true, "stream": true})"));
  client.read_until("data: ");
  EXPECT_EQ(server.status()["live_requests"].get<int>(), 1);
  client.reset();
  json status = server.status();
  for (int i = 0; i < 300 && status["engine"]["running"].get<int>() > 0; ++i) status = server.status();
  EXPECT_EQ(status["engine"]["running"].get<int>(), 0);
  EXPECT_LT(status["engine"]["generated_tokens"].get<int>(), 1900);
}

TEST(Http, AsksForTheKey) {
  Served server({"--api-key", "secret"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  RawClient client(server.http_port());
  client.send(get("/v1/models"));
  EXPECT_THAT(client.read_until("\"}}"), StartsWith("HTTP/1.1 401"));
  client.forget();
  client.send("GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer secret\r\n\r\n");
  EXPECT_THAT(client.read_until("]}"), StartsWith("HTTP/1.1 200"));
  client.forget();
  client.send(get("/health"));
  EXPECT_THAT(client.read_until("\r\n\r\n"), StartsWith("HTTP/1.1 200"));
}

// A request with a body, or without one where there is none, and what comes back: the status and the whole answer.
struct Exchanged {
  int status = 0;
  std::string answer;
};

Exchanged exchange(uint16_t port, const std::string& head, const std::string& body = "") {
  RawClient client(port);
  client.send(head + "\r\nHost: a\r\nConnection: close\r\n" +
              (body.empty() ? "\r\n" : "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body));
  const std::string answer = client.read_to_end();
  return {answer.size() > 12 ? std::stoi(answer.substr(9, 3)) : 0, answer};
}

TEST(Http, GivesEveryErrorItsStatusInOpenAisForm) {
  TempDir scratch;
  write_file(scratch / "keys.json",
             R"({"keys": [{"key": "all"}, {"key": "one", "tenant": "bound", "adapters": ["moby"]}],
    "tenants": {"bound": {"requests_per_minute": 1}}})");
  std::filesystem::create_directory(scratch / "empty");
  Served server(
      {"--api-key-file", (scratch / "keys.json").string(), "--lora-modules", "broken=" + (scratch / "empty").string()});
  ASSERT_TRUE(server.ready()) << server.process().err();
  const std::string json_body = "\r\nContent-Type: application/json", all = "\r\nAuthorization: Bearer all",
                    one = "\r\nAuthorization: Bearer one", completions = "POST /v1/completions HTTP/1.1";
  struct Case {
    std::string head, body;
    int status;
    const char* code;
  };
  const Case cases[] = {
      {completions + all + json_body, "{", 400, "invalid_request"},
      {completions + all + json_body, R"({"prompt": "x", "max_tokens": 1000000})", 400, "context_length_exceeded"},
      {completions + json_body, R"({"prompt": "x"})", 401, "invalid_api_key"},
      {completions + one + json_body, R"({"prompt": "x", "model": "kjv"})", 403, "forbidden"},
      {"GET /metrics HTTP/1.1" + one, "", 403, "forbidden"},
      {"GET /nowhere HTTP/1.1" + all, "", 404, "not_found"},
      {completions + all + json_body, R"({"prompt": "x", "model": "nobody"})", 404, "model_not_found"},
      {"GET /v1/models/nobody HTTP/1.1" + all, "", 404, "model_not_found"},
      {"DELETE /v1/models HTTP/1.1" + all, "", 405, "method_not_allowed"},
      {completions + all + json_body + "\r\nContent-Length: 20000000", "", 413, "body_too_large"},
      {completions + all, R"({"prompt": "x"})", 415, "unsupported_media_type"},
      {completions + all + json_body, R"({"prompt": "x", "model": "broken"})", 422, "adapter_failed"},
      {completions + one + json_body, R"({"prompt": "x", "n": 2})", 429, "rate_limit_exceeded"},
      {"GET /health HTTP/1.1\r\nX: " + std::string(40'000, 'x'), "", 431, "head_too_large"},
  };
  const std::string of_bound =
      completions + one + json_body;  // whose one request of the minute this is, of two answers
  EXPECT_EQ(exchange(server.http_port(), of_bound, R"({"prompt": "x", "max_tokens": 1, "n": 2})").status, 200);
  for (const auto& [head, body, status, code] : cases) {
    const auto [got, answer] = exchange(server.http_port(), head, body);
    ASSERT_EQ(got, status) << head << " " << body << "\n" << answer;
    const json error = json::parse(body_of(answer))["error"];
    EXPECT_EQ(error["code"], code) << answer;
    EXPECT_FALSE(error["message"].get<std::string>().empty());
    EXPECT_TRUE(error["type"].is_string() && error.contains("param")) << answer;
    EXPECT_EQ(answer.find("Retry-After: ") != std::string::npos, status == 429) << answer;
  }
}

TEST(Http, SharesATenantsLimitsWithZmq) {
  TempDir scratch;
  write_file(scratch / "keys.json", R"({"keys": [{"key": "secret", "tenant": "acme"}, {"key": "k", "admin": true}],
    "tenants": {"acme": {"requests_per_minute": 2}}})");
  Served server({"--api-key-file", (scratch / "keys.json").string(), "--zmq-plain"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  auto client =
      comm::ZmqClient::connect(server.address(), comm::Encoding::json, {"", "", "", "acme", "secret"}).value();
  const auto ask = [&] {
    EXPECT_TRUE(client->send(greedy_request("x", std::nullopt, 1)));
    return collect(*client, 1).front();
  };
  EXPECT_TRUE(ask().done.has_value());
  const std::string head =
      "POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\nAuthorization: Bearer secret";
  EXPECT_EQ(exchange(server.http_port(), head, R"({"prompt": "x", "max_tokens": 1})").status, 200);
  EXPECT_EQ(exchange(server.http_port(), head, R"({"prompt": "x", "max_tokens": 1})").status, 429);
  const Answer refused = ask();
  ASSERT_TRUE(refused.failure.has_value());
  EXPECT_EQ(refused.failure->code, "rate_limited");
  const auto said = [](std::vector<std::string> arguments) {
    const Finished finished = run_lorikeet(arguments);
    EXPECT_EQ(finished.status, 1);
    return finished.err;
  };
  const std::string zmq = server.address(), url = server.http_url();
  EXPECT_THAT(said({"status", "--zmq", zmq}), HasSubstr("asks for a key: give --api-key and --tenant"));
  for (const std::string key : {"wrong", "secret"}) {  // the right one is not of the tenant "default"
    EXPECT_THAT(said({"status", "--zmq", zmq, "--api-key", key}),
                HasSubstr("does not take this key as one of the tenant \"default\" (--tenant says whose it is)"));
  }
  EXPECT_THAT(said({"chat", "--url", url}), HasSubstr("a key is needed: give --api-key, or LORIKEET_API_KEY in the"));
  EXPECT_THAT(said({"chat", "--url", url, "--api-key", "wrong"}),
              AllOf(HasSubstr("does not take the key of --api-key"), HasSubstr("not one of this server's")));
  EXPECT_TRUE(refused.failure->retry_after_s.has_value());
}

TEST(Http, AnswersAsItsOwnDocumentSays) {
  Served server({"--api-key", "secret", "--max-model-len", "40"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  TempDir scratch;
  const std::string output = (scratch / "output").string();
  const char* more = std::getenv("LORIKEET_SCHEMATHESIS_EXAMPLES");  // tests/run.sh --full asks for more
  const std::string command =
      "cd " + scratch.path().string() + " && " + source_path("build/venv/bin/schemathesis").string() + " run " +
      server.http_url() + "/openapi.json -H 'Authorization: Bearer secret' --seed 1 --phases " +
      (more != nullptr ? std::string("coverage,fuzzing --max-examples ") + more : "fuzzing --max-examples 8") +
      " --checks not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
      "response_schema_conformance,unsupported_method,ignored_auth --suppress-health-check all "
      "--generation-database none > " +
      output + " 2>&1";
  EXPECT_EQ(std::system(command.c_str()), 0) << read_file(output) << server.process().err();
}

TEST(Http, GivesPrometheusDataForEveryPanelOfTheDashboard) {
  Served server;
  ASSERT_TRUE(server.ready()) << server.process().err();
  TempDir scratch;
  const Finished prometheus =
      run_python(source_path("tests/launcher/scrape_with_prometheus.py"), {server.http_url(), scratch.path().string()});
  EXPECT_EQ(prometheus.status, 0) << prometheus.out << prometheus.err;
}

TEST(Http, SpeaksTlsAndAsksForTheClientsCertificate) {
  TempDir scratch;
  const std::string key = (scratch / "key.pem").string(), certificate = (scratch / "certificate.pem").string();
  ASSERT_EQ(std::system(("openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext "
                         "subjectAltName=IP:127.0.0.1,DNS:elsewhere -keyout " +
                         key + " -out " + certificate + " 2> /dev/null")
                            .c_str()),
            0);
  const std::string with_own = R"(
import httpx, ssl, sys
context = ssl.create_default_context(cafile="CERTIFICATE")
context.load_cert_chain("CERTIFICATE", "KEY")
client = httpx.Client(verify=context)
for _ in range(3):
    assert client.get("URL/v1/models").status_code == 200
with client.stream("POST", "URL/v1/completions", json={"prompt": "x", "max_tokens": 8, "stream": True}) as answer:
    assert answer.read().endswith(b"data: [DONE]\n\n")
try:
    httpx.get("URL/health", verify=ssl.create_default_context(cafile="CERTIFICATE"))
    sys.exit("a client without a certificate was let in")
except httpx.TransportError:
    pass
)";
  Served server(
      {"--ssl-keyfile", key, "--ssl-certfile", certificate, "--ssl-ca-certs", certificate, "--ssl-cert-reqs", "2"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  EXPECT_THAT(server.http_url(), StartsWith("https://127.0.0.1:"));
  std::string program = with_own;
  for (const auto& [name, value] :
       std::map<std::string, std::string>{{"CERTIFICATE", certificate}, {"KEY", key}, {"URL", server.http_url()}}) {
    for (size_t at = 0; (at = program.find(name, at)) != std::string::npos; at += value.size()) {
      program.replace(at, name.size(), value);
    }
  }
  write_file(scratch / "program.py", program);
  const Finished client = run_python(scratch / "program.py");
  EXPECT_EQ(client.status, 0) << client.out << client.err;
  std::string url = server.http_url();
  const auto bench = [&url](const std::vector<std::string>& how) {
    std::vector<std::string> arguments = {"bench",       "serve", "--url",        url, "--num-prompts", "4",
                                          "--input-len", "4",     "--output-len", "4"};
    arguments.insert(arguments.end(), how.begin(), how.end());
    return run_lorikeet(arguments);
  };
  const auto measured = bench({"--cacert", certificate, "--cert", certificate, "--key", key});
  EXPECT_EQ(measured.status, 0) << measured.err;
  EXPECT_THAT(measured.out, HasSubstr("first token, p99"));
  EXPECT_EQ(bench({"--insecure", "--cert", certificate, "--key", key}).status, 0);
  EXPECT_THAT(bench({"--cert", certificate, "--key", key}).err,
              HasSubstr("its certificate is not believed: self-signed certificate"));
  EXPECT_EQ(bench({"--insecure"}).status, 1) << "without a certificate of its own";
  EXPECT_EQ(bench({"--cacert", (scratch / "none").string()}).status, 2);
  url = "https://localhost:" + std::to_string(server.http_port());  // which the certificate does not name
  EXPECT_THAT(bench({"--cacert", certificate, "--cert", certificate, "--key", key}).err,
              HasSubstr("its certificate is not believed: hostname mismatch"));
  RawClient plain(server.http_port());  // no TLS: no answer in the clear
  plain.send(get("/health"));
  EXPECT_EQ(plain.read_to_end().find("HTTP/1.1 200"), std::string::npos);
}

TEST(Http, LetsStreamsEndWhenItIsAskedToStopAndTakesNothingNew) {
  Served server;
  ASSERT_TRUE(server.ready()) << server.process().err();
  RawClient stream(server.http_port()), other(server.http_port());
  other.send(get("/health"));
  EXPECT_THAT(other.read_until("\r\n\r\n"), StartsWith("HTTP/1.1 200"));
  stream.send(
      post("/v1/completions", R"({"prompt": "The sea", "max_tokens": 600, "ignore_eos": true, "stream": true})"));
  stream.read_until("data: ");
  server.process().signal(SIGTERM);
  bool draining = false;
  for (int i = 0; i < 1000 && !draining; ++i) {
    other.forget();
    other.send(get("/health"));
    draining = other.read_until("\r\n\r\n").rfind("HTTP/1.1 503", 0) == 0;
    if (draining) other.read_until("}}");
  }
  EXPECT_TRUE(draining);
  other.forget();
  other.send(post("/v1/completions", R"({"prompt": "The land"})"));
  EXPECT_THAT(other.read_until("}}"), StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(stream.read_until("data: [DONE]\n\n"), HasSubstr("\"finish_reason\":\"length\""));
  EXPECT_EQ(server.process().wait(), 0) << server.process().err();
}

TEST(Http, EndsAtOnceWhenItIsAskedToStopASecondTime) {
  Served server;
  ASSERT_TRUE(server.ready()) << server.process().err();
  const auto children = descendants_of(server.process().pid());
  RawClient stream(server.http_port());
  stream.send(
      post("/v1/completions", R"({"prompt": "The sea", "max_tokens": 1900, "ignore_eos": true, "stream": true})"));
  stream.read_until("data: ");
  server.process().signal(SIGTERM);
  while (server.process().running()) {  // those too close to the first are taken for the same wish
    server.process().signal(SIGINT);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  // 130: one more came when the server had ended and its process had not.
  EXPECT_THAT(server.process().wait(), testing::AnyOf(0, 128 + SIGINT)) << server.process().err();
  EXPECT_EQ(stream.read_to_end().find("[DONE]"), std::string::npos);
  EXPECT_TRUE(wait_until_gone(children));
}

TEST(Http, EndsARequestThatTakesTooLong) {
  Served server({"--request-timeout", "0.5"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  RawClient client(server.http_port());
  client.send(post("/v1/completions", R"({"prompt": "The sea", "max_tokens": 1900, "ignore_eos": true})"));
  const std::string& answer = client.read_until("}}");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 408"));
  EXPECT_EQ(json::parse(body_of(answer))["error"]["code"], "request_timeout");
}

TEST(Http, LogsEveryRequestWithItsId) {
  Served server;
  ASSERT_TRUE(server.ready()) << server.process().err();
  RawClient client(server.http_port());
  const std::string body = R"({"model": "moby", "prompt": "The sea", "max_tokens": 3, "ignore_eos": true})";
  client.send(
      "POST /v1/completions HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\nContent-Type: application/json\r\n"
      "Content-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body);
  client.read_until("usage");
  for (int i = 0; i < 3000 && server.process().err().find("request mine/0: ") == std::string::npos; ++i)
    server.status();
  EXPECT_THAT(server.process().err(), HasSubstr(" info request mine/0: length, adapter moby, "));
}

TEST(Http, IsBackAtItsPortWhenTheHeadHasDied) {
  Served server;
  ASSERT_TRUE(server.ready()) << server.process().err();
  const uint16_t port = server.http_port();
  const auto head = server.status()["head"]["pid"].get<pid_t>();
  kill(head, SIGKILL);
  ASSERT_TRUE(wait_until_gone({head}));
  bool healthy = false;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!healthy && std::chrono::steady_clock::now() < deadline) {
    RawClient client(port);
    if (client.ended()) {  // nobody listens yet
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      continue;
    }
    client.send(get("/health"));
    healthy = client.read_until("\r\n\r\n").rfind("HTTP/1.1 200", 0) == 0;
  }
  EXPECT_TRUE(healthy) << server.process().err();
}

TEST(Http, SaysWhichRankHasDiedAndNotItsSurvivor) {
  Served server({"--tp", "2"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  bool named = false;
  for (int tries = 0; !named && tries < 10; ++tries) {  // it may serve again before it is asked
    const int before = server.status()["epoch"].get<int>();
    kill(server.status()["ranks"][1]["pid"].get<pid_t>(), SIGKILL);
    bool serves_again = false;
    while (!named && !serves_again) {
      const std::string answer = exchange(server.http_port(), "GET /health HTTP/1.1").answer;
      EXPECT_THAT(answer, ::testing::Not(HasSubstr("rank 0")));
      named = answer.find("rank 1 was killed by signal 9") != std::string::npos;
      const json status = server.status();
      serves_again = status["epoch"].get<int>() > before && status["serving"].get<bool>();
    }
  }
  EXPECT_TRUE(named) << server.process().err();
}

TEST(Http, SaysThatItsPortIsTaken) {
  Served first;
  ASSERT_TRUE(first.ready()) << first.process().err();
  Served second({"--port", std::to_string(first.http_port())});
  EXPECT_FALSE(second.ready());
  EXPECT_NE(second.process().wait(), 0);
  EXPECT_THAT(second.process().err(), HasSubstr("the port is in use"));
}

TEST(Http, IsClosedWhereItIsNotWanted) {
  Served server({"--no-http"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  EXPECT_EQ(server.http_url(), "");
}

}  // namespace
}  // namespace lorikeet::tests
