#include "launcher/http_flags.h"

namespace lorikeet::launcher {
void add_http_flags(CLI::App& app, HttpFlags& flags) {
  actors::HttpDoorOptions& o = flags.options;
  o.port = 8000;
  const std::string group = "HTTP (OpenAI's API)";
  app.add_option("--host", o.host, "Address to listen on; one that others reach needs --api-key")->group(group);
  app.add_option("--port", o.port, "Port (0 picks one and says it)")->check(CLI::Range(0, 65535))->group(group);
  app.add_flag("--no-http", flags.no_http, "Open no HTTP door")->group(group);
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
  // As vLLM has it, where they are off.
  app.add_flag("--enable-log-requests,!--no-enable-log-requests", options.requests)->group("");
  app.add_flag("--log-json", options.json, "Lines of JSON, all that comes to standard error")->group(group);
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
