#include "launcher/http_flags.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>

namespace lorikeet::launcher {
namespace {

constexpr size_t kMaxKeyBytes = 1024;
constexpr size_t kMaxKeys = 1024;

// A key per line; empty lines and those that begin with # are none.
Result<void> read_key_file(const std::string& path, std::vector<std::string>& keys) {
  std::ifstream file(path);
  if (!file) return fail("--api-key-file {}: it cannot be read", path);
  const size_t before = keys.size();
  for (std::string line; std::getline(file, line);) {
    line.erase(0, line.find_first_not_of(" \t"));
    line.erase(line.find_last_not_of(" \t\r") + 1);
    if (line.empty() || line[0] == '#') continue;
    keys.push_back(line);
    if (keys.size() > kMaxKeys) return fail("--api-key-file {}: more than {} keys", path, kMaxKeys);
  }
  if (keys.size() == before) return fail("--api-key-file {}: there is no key in it", path);
  return {};
}

Result<void> check_keys(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) {
    const bool visible = std::all_of(key.begin(), key.end(), [](char c) { return c > 0x20 && c < 0x7F; });
    if (key.empty() || key.size() > kMaxKeyBytes || !visible) {
      return fail("--api-key: a key is 1 to {} visible ASCII characters", kMaxKeyBytes);
    }
  }
  return {};
}

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.rfind("127.", 0) == 0;
}

}  // namespace

void add_http_flags(CLI::App& app, HttpFlags& flags) {
  actors::HttpDoorOptions& o = flags.options;
  o.port = 8000;
  const std::string group = "HTTP (OpenAI's API)";
  app.add_option("--host", o.host, "Address to listen on; one that others reach needs --api-key")->group(group);
  app.add_option("--port", o.port, "Port (0 picks one and says it)")->check(CLI::Range(0, 65535))->group(group);
  app.add_flag("--no-http", flags.no_http, "Open no HTTP door")->group(group);
  app.add_option("--api-key", o.api_keys, "Keys that clients must give (or LORIKEET_API_KEY in the environment)")
      ->expected(1, CLI::detail::expected_max_vector_size)
      ->group(group);
  app.add_option("--api-key-file", flags.api_key_file, "File with a key per line")->group(group);
  app.add_flag("--allow-unauthenticated", flags.allow_unauthenticated, "Let strangers in who reach --host")
      ->group(group);
  app.add_option("--root-path", o.root_path, "Prefix of the path that a proxy leaves in")->group(group);
  app.add_option("--allowed-origins", o.allowed_origins, "Origins of web pages that may ask (* is all)")
      ->expected(1, CLI::detail::expected_max_vector_size)
      ->group(group);
  app.add_option("--ssl-keyfile", o.ssl_keyfile, "TLS: the private key, PEM")->group(group);
  app.add_option("--ssl-certfile", o.ssl_certfile, "TLS: the certificate chain, PEM")->group(group);
  app.add_option("--ssl-ca-certs", o.ssl_ca_certs, "TLS: who may sign the certificates of clients, PEM")->group(group);
  app.add_option("--ssl-cert-reqs", o.ssl_cert_reqs, "TLS: certificates of clients: 0 none, 1 optional, 2 required")
      ->check(CLI::Range(0, 2))
      ->group(group);
}

void add_log_flags(CLI::App& app, actors::LogOptions& options) {
  const std::string group = "Log";
  options.level = "info";
  app.add_option("--log-level", options.level, "What is logged to standard error")
      ->transform(CLI::IsMember({"trace", "debug", "info", "warning", "error", "critical", "off"}, CLI::ignore_case))
      ->group(group);
  app.add_flag("!--disable-log-requests,--log-requests", options.requests, "A line for every request that has ended")
      ->group(group);
  app.add_flag("--log-json", options.json, "Lines of JSON")->group(group);
}

void add_drain_flag(CLI::App& app, double& seconds) {
  app.add_option("--drain-timeout", seconds,
                 "Seconds for running requests to end after SIGTERM or SIGINT; a second signal ends at once")
      ->check(CLI::Range(0.0, 86400.0))
      ->group("Processes");
}

void refuse_http_flags(CLI::App& app, ForeignFlags& given) {
  for (const char* flag : {"--host", "--port", "--api-key", "--api-key-file", "--ssl-keyfile", "--ssl-certfile"}) {
    const std::string sentence = std::string(flag) + ": this command opens no HTTP door; `lorikeet serve` does";
    app.add_option_function<std::string>(flag,
                                         [&given, sentence](const std::string&) { given.refused.push_back(sentence); })
        ->group("");
  }
}

Result<actors::HttpDoorOptions> resolve(const HttpFlags& flags) {
  actors::HttpDoorOptions o = flags.options;
  if (flags.no_http) return actors::HttpDoorOptions{};
  if (!flags.api_key_file.empty()) {
    if (auto ok = read_key_file(flags.api_key_file, o.api_keys); !ok) return tl::unexpected(ok.error());
  }
  for (const char* name : {"LORIKEET_API_KEY", "VLLM_API_KEY"}) {
    const char* key = std::getenv(name);
    if (o.api_keys.empty() && key != nullptr && *key != '\0') o.api_keys.emplace_back(key);
  }
  if (auto ok = check_keys(o.api_keys); !ok) return tl::unexpected(ok.error());
  if (!is_loopback(o.host) && o.api_keys.empty() && !flags.allow_unauthenticated) {
    return fail("--host {}: others could reach it; give --api-key, or --allow-unauthenticated to let everybody in",
                o.host);
  }
  if (o.ssl_keyfile.empty() != o.ssl_certfile.empty()) return fail("--ssl-keyfile and --ssl-certfile go together");
  if (o.ssl_certfile.empty() && (o.ssl_cert_reqs > 0 || !o.ssl_ca_certs.empty())) {
    return fail("--ssl-cert-reqs and --ssl-ca-certs need --ssl-certfile and --ssl-keyfile");
  }
  if (!o.root_path.empty() && (o.root_path.front() != '/' || o.root_path.back() == '/')) {
    return fail("--root-path {}: it begins with / and does not end with one", o.root_path);
  }
  return o;
}

}  // namespace lorikeet::launcher
