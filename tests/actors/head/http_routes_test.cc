#include "actors/head/http_routes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "comm/openai/openapi.h"

namespace lorikeet::actors {
namespace {

using comm::HttpRequest;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;

HttpRequest ask(std::string method, std::string target, comm::HttpHeaders headers = {}) {
  HttpRequest request;
  request.method = std::move(method);
  request.target = std::move(target);
  request.headers = std::move(headers);
  return request;
}

std::shared_ptr<const Access> access(const std::vector<std::string>& keys) {
  AccessOptions options;
  for (const std::string& key : keys) options.credentials.emplace_back().key = key;
  return std::make_shared<const Access>(options);
}

int refused(const HttpRoutes& routes, const HttpRequest& head) {
  const auto answer = routes.refuse(head);
  return answer ? answer->status : 0;
}

const comm::HttpHeaders kJsonBody = {{"content-type", "application/json; charset=utf-8"}};

TEST(HttpRoutes, FindTheirPaths) {
  const HttpRoutes routes({});
  EXPECT_EQ(routes.find(ask("POST", "/v1/completions"))->route, HttpRoute::completions);
  EXPECT_EQ(routes.find(ask("POST", "/v1/chat/completions?x=1"))->route, HttpRoute::chat_completions);
  EXPECT_EQ(routes.find(ask("GET", "/v1/models"))->route, HttpRoute::models);
  const auto model = routes.find(ask("GET", "/v1/models/Qwen%2FQwen2.5/x%zz%2"));
  ASSERT_TRUE(model);
  EXPECT_EQ(model->route, HttpRoute::model);
  EXPECT_EQ(model->name, "Qwen/Qwen2.5/x%zz%2");
  EXPECT_EQ(routes.find(ask("POST", "/v1/load_lora_adapter"))->route, HttpRoute::load_adapter);
  EXPECT_EQ(routes.find(ask("POST", "/v1/unload_lora_adapter"))->route, HttpRoute::unload_adapter);
  EXPECT_EQ(routes.find(ask("GET", "/v1/adapters"))->route, HttpRoute::adapters);
  const auto pin = routes.find(ask("POST", "/v1/adapters/a/b%20c/pin"));
  ASSERT_TRUE(pin);
  EXPECT_EQ(pin->route, HttpRoute::pin_adapter);
  EXPECT_EQ(pin->name, "a/b c");
  EXPECT_EQ(refused(routes, ask("POST", "/v1/adapters/a/warm")), 0) << "it needs no body";
  EXPECT_EQ(refused(routes, ask("GET", "/v1/adapters/a/warm")), 405);
  for (const char* path :
       {"/v1/adapters/", "/v1/adapters/a", "/v1/adapters//pin", "/v1/adapters/pin", "/v1/adapters/a/pin/"}) {
    EXPECT_FALSE(routes.find(ask("POST", path))) << path;
  }
  for (const char* path : {"//", "/v1", "/v1/models/", "/health/", "/v1/completions/x", "*", ""}) {
    EXPECT_FALSE(routes.find(ask("GET", path))) << path;
    EXPECT_EQ(refused(routes, ask("GET", path)), 404) << path;
  }
}

TEST(HttpRoutes, AreTheOnesThatTheServersDocumentDescribes) {
  std::map<std::string, std::set<std::string>> served, described;
  for (const auto& [path, methods] : HttpRoutes::all()) {
    std::string text(methods), name(path);
    if (const size_t star = name.find('*'); star != std::string::npos) name.replace(star, 1, "{name}");
    std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
    std::istringstream list(text);
    for (std::string method; std::getline(list >> std::ws, method, ',');) served[name].insert(method);
  }
  EXPECT_EQ(served.erase("/"), 1u) << "the page for people is no part of the API";
  const auto document = nlohmann::json::parse(comm::openapi_document("1"));
  for (const auto& path : document["paths"].items()) {
    for (const auto& operation : path.value().items()) described[path.key()].insert(operation.key());
  }
  EXPECT_EQ(served, described);
}

TEST(HttpRoutes, RefuseMethodsAndBodiesThatTheyDoNotTake) {
  const HttpRoutes routes({});
  EXPECT_EQ(refused(routes, ask("GET", "/health")), 0);
  EXPECT_EQ(refused(routes, ask("HEAD", "/health")), 0);
  const auto answer = routes.refuse(ask("GET", "/v1/completions"));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 405);
  EXPECT_THAT(answer->headers, Contains(Pair("Allow", "POST")));
  EXPECT_EQ(refused(routes, ask("DELETE", "/v1/models")), 405);
  EXPECT_EQ(refused(routes, ask("POST", "/v1/completions", kJsonBody)), 0);
  EXPECT_EQ(refused(routes, ask("POST", "/v1/completions", {{"content-type", "APPLICATION/JSON"}})), 0);
  EXPECT_EQ(refused(routes, ask("POST", "/v1/completions", {{"content-type", "text/plain"}})), 415);
  EXPECT_EQ(refused(routes, ask("POST", "/v1/completions")), 415);
  auto coded = ask("POST", "/v1/completions", {{"content-type", "application/json"}, {"content-encoding", "Identity"}});
  EXPECT_EQ(refused(routes, coded), 0);
  coded = ask("POST", "/v1/completions", {{"content-type", "application/json"}, {"content-encoding", "gzip"}});
  ASSERT_EQ(refused(routes, coded), 415);
  EXPECT_THAT(routes.refuse(coded)->body, HasSubstr("not with Content-Encoding: gzip"));
  EXPECT_EQ(refused(routes, ask("POST", "/reset_prefix_cache")), 0);
}

TEST(HttpRoutes, AskForAKeyEverywhereButWhereALoadBalancerLooks) {
  HttpRoutes::Options options;
  options.access = access({"first", "second"});
  const HttpRoutes routes(options);
  EXPECT_EQ(refused(routes, ask("GET", "/health")), 0);
  EXPECT_EQ(refused(routes, ask("GET", "/ping")), 0);
  for (const char* path : {"/v1/models", "/v1/models/x", "/version", "/tokenize", "/nowhere", "/v1/completions"}) {
    EXPECT_EQ(refused(routes, ask("GET", path)), 401) << path;
    EXPECT_EQ(refused(routes, ask("GET", path, {{"authorization", "Bearer firs"}})), 401) << path;
  }
  for (const char* right : {"Bearer first", "bearer second"}) {
    EXPECT_EQ(refused(routes, ask("GET", "/v1/models", {{"authorization", right}})), 0) << right;
  }
  for (const char* wrong : {"", "first", "Bearer", "Bearer ", "Bearer first ", "Basic first", "Bearer third"}) {
    EXPECT_EQ(refused(routes, ask("GET", "/v1/models", {{"authorization", wrong}})), 401) << wrong;
  }
  EXPECT_EQ(refused(routes, ask("GET", "/v1/models", {{"authorization", "Bearer " + std::string(5000, 'x')}})), 401);
  EXPECT_EQ(refused(routes, ask("GET", "/nowhere", {{"authorization", "Bearer first"}})), 404);
  const auto answer = routes.refuse(ask("GET", "/version"));
  EXPECT_THAT(answer->headers, Contains(Pair("WWW-Authenticate", "Bearer")));
  EXPECT_THAT(answer->body, HasSubstr("a key is needed"));
  EXPECT_THAT(routes.refuse(ask("GET", "/version", {{"authorization", "Bearer third"}}))->body,
              HasSubstr("the key is not one of this server's"));
  EXPECT_EQ(nlohmann::json::parse(answer->body)["error"]["code"], "invalid_api_key");
}

TEST(HttpRoutes, ShowWhatIsOfAllTenantsToAdministratorsAlone) {
  AccessOptions keys;
  for (const char* key : {"operator", "tenant"}) {
    keys.credentials.emplace_back().key = key;
    keys.credentials.back().admin = key == std::string("operator");
  }
  HttpRoutes::Options options;
  options.access = std::make_shared<const Access>(keys);
  const HttpRoutes routes(options);
  for (const auto& [method, path] :
       std::map<std::string, std::string>{{"GET", "/metrics"}, {"POST", "/reset_prefix_cache"}}) {
    EXPECT_EQ(refused(routes, ask(method, path)), 401) << path;
    EXPECT_EQ(refused(routes, ask(method, path, {{"authorization", "Bearer tenant"}})), 403) << path;
    EXPECT_EQ(refused(routes, ask(method, path, {{"authorization", "Bearer operator"}})), 0) << path;
  }
  EXPECT_EQ(refused(routes, ask("GET", "/load", {{"authorization", "Bearer tenant"}})), 0);
}

TEST(HttpRoutes, LeaveOutThePrefixOfAProxy) {
  HttpRoutes::Options options;
  options.root_path = "/llm";
  const HttpRoutes routes(options);
  EXPECT_EQ(routes.find(ask("GET", "/llm/v1/models"))->route, HttpRoute::models);
  EXPECT_EQ(routes.find(ask("GET", "/v1/models"))->route, HttpRoute::models);
  EXPECT_FALSE(routes.find(ask("GET", "/llmv1/models")));
  EXPECT_FALSE(routes.find(ask("GET", "/llm")));
}

TEST(HttpRoutes, LetPagesAskOfAllowedOriginsOnly) {
  HttpRoutes::Options options;
  options.access = access({"key"});
  options.allowed_origins = {"https://good.example"};
  const HttpRoutes routes(options);
  const auto preflight = [&](const char* origin) {
    return routes.refuse(
        ask("OPTIONS", "/v1/completions", {{"origin", origin}, {"access-control-request-method", "POST"}}));
  };
  const auto good = preflight("https://good.example");
  ASSERT_TRUE(good);
  EXPECT_EQ(good->status, 204);
  EXPECT_THAT(good->headers, Contains(Pair("Access-Control-Allow-Origin", "https://good.example")));
  const auto bad = preflight("https://bad.example");
  ASSERT_TRUE(bad);
  EXPECT_EQ(bad->status, 403);
  EXPECT_THAT(bad->headers, Not(Contains(Pair("Access-Control-Allow-Origin", ::testing::_))));
  EXPECT_THAT(routes.common_headers(ask("GET", "/", {{"origin", "https://good.example"}}), "id"),
              Contains(Pair("Access-Control-Allow-Origin", "https://good.example")));
  EXPECT_THAT(routes.common_headers(ask("GET", "/", {{"origin", "https://bad.example"}}), "id"),
              ::testing::ElementsAre(Pair("X-Request-Id", "id")));
}

TEST(HttpRoutes, LetNoPageFromElsewhereChangeWhatIsServedWithoutAKey) {
  HttpRoutes::Options options;
  options.allowed_origins = {"https://good.example"};
  const HttpRoutes open(options);
  using Headers = comm::HttpHeaders;
  const Headers may[] = {{},
                         {{"host", "localhost:8000"}},
                         {{"host", "LocalHost:8000"}, {"origin", "http://localhost:8000"}},
                         {{"host", "127.0.0.1:8000"}, {"origin", "https://proxy"}, {"sec-fetch-site", "same-origin"}},
                         {{"host", "localhost:8000"}, {"origin", "https://good.example"}}};
  const Headers may_not[] = {{{"host", "localhost:8000"}, {"origin", "http://evil"}, {"content-type", "text/plain"}},
                             {{"host", "localhost:8000"}, {"origin", "http://localhost:8001"}},
                             {{"host", "localhost:8000"}, {"origin", "null"}},
                             {{"host", "evil"}, {"origin", "evil"}},
                             {{"origin", "http://evil"}, {"sec-fetch-site", "cross-site"}}};
  for (const char* path : {"/reset_prefix_cache", "/v1/adapters/moby/pin", "/v1/adapters/moby/unpin"}) {
    for (const Headers& headers : may) EXPECT_EQ(refused(open, ask("POST", path, headers)), 0) << path;
    for (const Headers& headers : may_not) EXPECT_EQ(refused(open, ask("POST", path, headers)), 403) << path;
  }
  EXPECT_EQ(refused(open, ask("GET", "/v1/adapters", may_not[0])), 0) << "it changes nothing, and no page can read it";
  options.access = access({"key"});
  auto with_key = may_not[0];
  with_key.emplace_back("authorization", "Bearer key");
  EXPECT_EQ(refused(HttpRoutes(options), ask("POST", "/reset_prefix_cache", with_key)), 0)
      << "a browser asks before it sends one";
}

TEST(HttpRoutes, TakeTheClientsRequestIdWhereItIsVisibleText) {
  EXPECT_EQ(request_id_of(ask("GET", "/", {{"x-request-id", "abc-123"}})), "abc-123");
  const std::string made = request_id_of(ask("GET", "/"));
  EXPECT_EQ(made.size(), 32u);
  EXPECT_NE(made, request_id_of(ask("GET", "/")));
  for (const std::string& bad : {std::string("a b"), std::string("a\xFF"), std::string(129, 'x')}) {
    EXPECT_EQ(request_id_of(ask("GET", "/", {{"x-request-id", bad}})).size(), 32u) << bad;
  }
  const auto refusal = HttpRoutes({}).refuse(ask("GET", "/x", {{"x-request-id", "mine"}}));
  EXPECT_THAT(refusal->headers, Contains(Pair("X-Request-Id", "mine")));
}

}  // namespace
}  // namespace lorikeet::actors
