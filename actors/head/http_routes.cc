#include "actors/head/http_routes.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <random>

#include "comm/openai/openai_error.h"
#include "kernels/base/printable.h"

namespace lorikeet::actors {
namespace {

using comm::HttpAnswer;
using comm::HttpRequest;

constexpr size_t kMaxRequestIdBytes = 128;

enum class Body : uint8_t { none, json };  // what a POST must bring

// A route is described in comm/openai/openapi.cc, too.
struct Row {
  std::string_view path;  // * stands for a name
  HttpRoute route;
  std::string_view methods;  // separated by commas, as the header Allow wants them
  Body body = Body::none;
  enum class For : uint8_t { all, keys, admins } whose = For::keys;
};
constexpr Row kRows[] = {
    {"/v1/completions", HttpRoute::completions, "POST", Body::json},
    {"/v1/chat/completions", HttpRoute::chat_completions, "POST", Body::json},
    {"/v1/models", HttpRoute::models, "GET, HEAD"},
    {"/v1/models/*", HttpRoute::model, "GET, HEAD"},
    {"/v1/load_lora_adapter", HttpRoute::load_adapter, "POST", Body::json, Row::For::admins},
    {"/v1/unload_lora_adapter", HttpRoute::unload_adapter, "POST", Body::json, Row::For::admins},
    {"/v1/adapters", HttpRoute::adapters, "GET, HEAD", Body::none, Row::For::admins},
    {"/v1/adapters/*/pin", HttpRoute::pin_adapter, "POST", Body::none, Row::For::admins},
    {"/v1/adapters/*/unpin", HttpRoute::unpin_adapter, "POST", Body::none, Row::For::admins},
    {"/v1/adapters/*/warm", HttpRoute::warm_adapter, "POST", Body::none, Row::For::admins},
    {"/tokenize", HttpRoute::tokenize, "POST", Body::json},
    {"/detokenize", HttpRoute::detokenize, "POST", Body::json},
    {"/health", HttpRoute::health, "GET, HEAD", Body::none, Row::For::all},
    {"/ping", HttpRoute::ping, "GET, HEAD, POST", Body::none, Row::For::all},
    {"/version", HttpRoute::version, "GET, HEAD"},
    {"/load", HttpRoute::load, "GET, HEAD"},
    {"/reset_prefix_cache", HttpRoute::reset_prefix_cache, "POST", Body::none, Row::For::admins},
    {"/metrics", HttpRoute::metrics, "GET, HEAD", Body::none, Row::For::admins},
    {"/openapi.json", HttpRoute::openapi, "GET, HEAD"},
    {"/", HttpRoute::page, "GET, HEAD", Body::none, Row::For::all},
};

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), [](unsigned char c) { return std::tolower(c); });
  return result;
}

// The name that stands for the star in the row's path; nullopt: it is another path. Empty where there is no star.
std::optional<std::string_view> name_in(const Row& row, std::string_view path) {
  const size_t star = row.path.find('*');
  if (star == std::string_view::npos) return path == row.path ? std::optional(std::string_view()) : std::nullopt;
  const std::string_view before = row.path.substr(0, star), after = row.path.substr(star + 1);
  if (path.size() <= before.size() + after.size()) return std::nullopt;
  if (path.substr(0, before.size()) != before || path.substr(path.size() - after.size()) != after) return std::nullopt;
  return path.substr(before.size(), path.size() - before.size() - after.size());
}

const Row* row_of(std::string_view path) {
  const auto found =
      std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& row) { return name_in(row, path).has_value(); });
  return found == std::end(kRows) ? nullptr : found;
}

bool allows(const Row& row, std::string_view method) {
  std::string_view methods = row.methods;
  while (!methods.empty()) {
    const size_t end = std::min(methods.find(", "), methods.size());
    if (methods.substr(0, end) == method) return true;
    methods.remove_prefix(std::min(end + 2, methods.size()));
  }
  return false;
}

std::string_view without_root(std::string_view path, const std::string& root) {
  const bool below =
      !root.empty() && path.size() > root.size() && path.substr(0, root.size()) == root && path[root.size()] == '/';
  return below ? path.substr(root.size()) : path;
}

// "a%2Fb" -> "a/b". What is no escape stays as it is.
std::string percent_decoded(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    uint8_t byte = 0;
    const bool escape = text[i] == '%' && i + 2 < text.size();
    const auto parsed = escape ? std::from_chars(&text[i + 1], &text[i + 1] + 2, byte, 16) : std::from_chars_result{};
    if (escape && parsed.ec == std::errc() && parsed.ptr == &text[i + 1] + 2) {
      result += static_cast<char>(byte);
      i += 2;
    } else {
      result += text[i];
    }
  }
  return result;
}

bool is_json(std::string_view content_type) {
  const std::string type = lower(content_type.substr(0, content_type.find(';')));
  return type.substr(0, type.find_last_not_of(' ') + 1) == "application/json";
}

HttpAnswer error_answer(int status, std::string_view sentence) {
  return {status, {{"Content-Type", "application/json"}}, comm::to_body(comm::error_of(status, sentence))};
}

}  // namespace

HttpRoutes::HttpRoutes(Options options) : options_(std::move(options)) {}

std::shared_ptr<const Grant> HttpRoutes::grant_of(const HttpRequest& head) const {
  static const auto kEverybody = std::make_shared<const Grant>();
  return options_.access ? options_.access->of_bearer(head.header("authorization")) : kEverybody;
}

std::vector<HttpRoutes::Served> HttpRoutes::all() {
  std::vector<Served> served;
  for (const Row& row : kRows) served.push_back({row.path, row.methods});
  return served;
}

std::optional<HttpRoutes::Found> HttpRoutes::find(const HttpRequest& request) const {
  const std::string_view path = without_root(request.path(), options_.root_path);
  const Row* row = row_of(path);
  if (row == nullptr) return std::nullopt;
  return Found{row->route, percent_decoded(*name_in(*row, path))};
}

std::optional<HttpAnswer> HttpRoutes::refuse(const HttpRequest& head) const {
  const auto with_common = [&](HttpAnswer answer) {
    for (auto& header : common_headers(head, request_id_of(head))) answer.headers.push_back(std::move(header));
    return answer;
  };
  const std::string_view origin = head.header("origin");
  if (head.method == "OPTIONS" && !origin.empty() && !head.header("access-control-request-method").empty()) {
    // A browser's preflight request comes without a key; the request after it needs one.
    if (!is_allowed_origin(origin)) return with_common(error_answer(403, "pages of this origin may not ask"));
    return with_common({204,
                        {{"Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS"},
                         {"Access-Control-Allow-Headers", "Authorization, Content-Type, X-Request-Id"},
                         {"Access-Control-Max-Age", "600"}},
                        ""});
  }
  const std::string_view path = without_root(head.path(), options_.root_path);
  const Row* row = row_of(path);
  const auto grant = row != nullptr && row->whose == Row::For::all ? nullptr : grant_of(head);
  if ((row == nullptr || row->whose != Row::For::all) && !grant) {
    const bool has_key = !head.header("authorization").empty();
    HttpAnswer answer =
        error_answer(401, has_key ? "the key is not one of this server's; it is given as Authorization: Bearer KEY"
                                  : "a key is needed: Authorization: Bearer KEY");
    answer.headers.emplace_back("WWW-Authenticate", "Bearer");
    return with_common(std::move(answer));
  }
  if (row == nullptr) {
    return with_common(error_answer(404, fmt::format("there is nothing at {}", path.substr(0, 200))));
  }
  if (row->whose == Row::For::admins && !grant->admin) {
    return with_common(error_answer(403, fmt::format("{} needs a key of an administrator", row->path)));
  }
  if (!allows(*row, head.method)) {
    HttpAnswer answer = error_answer(405, fmt::format("{} takes {}", row->path, row->methods));
    answer.headers.emplace_back("Allow", row->methods);
    return with_common(std::move(answer));
  }
  if (row->body == Body::none && head.method == "POST" && row->whose == Row::For::admins && !may_change(head)) {
    return with_common(error_answer(403, "pages of this origin may not ask (--allowed-origins)"));
  }
  if (row->body == Body::json && !is_json(head.header("content-type"))) {
    return with_common(error_answer(415, "the body must be JSON: Content-Type: application/json"));
  }
  const std::string_view coding = head.header("content-encoding");
  if (row->body == Body::json && !coding.empty() && lower(coding) != "identity") {
    return with_common(error_answer(
        415, fmt::format("the body must be sent as it is, not with Content-Encoding: {}", printable(coding, 80))));
  }
  return std::nullopt;
}

// A browser sends a POST that needs neither a JSON body nor a key for any web page, without a preflight request; its head
// says from which origin. Allowed: this server's own page, and clients that are no browsers.
bool HttpRoutes::may_change(const HttpRequest& head) const {
  const std::string_view origin = head.header("origin");
  if (origin.empty() || is_allowed_origin(origin) || head.header("sec-fetch-site") == "same-origin") return true;
  if (options_.access && options_.access->asks_for_keys()) return true;  // it has come with one
  const size_t scheme = origin.find("://");
  return scheme != std::string_view::npos && lower(origin.substr(scheme + 3)) == lower(head.header("host"));
}

bool HttpRoutes::is_allowed_origin(std::string_view origin) const {
  return std::any_of(options_.allowed_origins.begin(), options_.allowed_origins.end(),
                     [&](const std::string& allowed) { return allowed == "*" || allowed == origin; });
}

comm::HttpHeaders HttpRoutes::common_headers(const HttpRequest& head, const std::string& request_id) const {
  comm::HttpHeaders headers = {{"X-Request-Id", request_id}};
  const std::string_view origin = head.header("origin");
  if (!origin.empty() && is_allowed_origin(origin)) {
    headers.emplace_back("Access-Control-Allow-Origin", origin);
    headers.emplace_back("Access-Control-Expose-Headers", "X-Request-Id");
    headers.emplace_back("Vary", "Origin");
  }
  return headers;
}

std::string request_id_of(const HttpRequest& head) {
  const std::string_view given = head.header("x-request-id");
  const bool visible = std::all_of(given.begin(), given.end(), [](char c) { return c > 0x20 && c < 0x7F; });
  if (!given.empty() && given.size() <= kMaxRequestIdBytes && visible) return std::string(given);
  thread_local std::mt19937_64 random{(uint64_t{std::random_device()()} << 32) ^ std::random_device()()};
  const uint64_t high = random(), low = random();
  return fmt::format("{:016x}{:016x}", high, low);
}

}  // namespace lorikeet::actors
