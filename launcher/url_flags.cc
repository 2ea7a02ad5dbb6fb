#include "launcher/url_flags.h"

#include <cstdlib>

namespace lorikeet::launcher {

void add_url_flags(CLI::App& app, UrlFlags& flags) {
  const std::string group = "Over HTTP";
  CLI::Option* url = app.add_option("--url,--base-url", flags.url,
                                    "In place of ZeroMQ: http(s)://HOST:PORT of any server with OpenAI's API")
                         ->check(CLI::Validator(
                             [](const std::string& text) -> std::string {
                               const auto ok = check_server_url(text);
                               return ok ? "" : ok.error().message;
                             },
                             ""))
                         ->group(group);
  app.add_flag("-k,--insecure", flags.tls.insecure, "https: believe whoever answers, without a look at its certificate")
      ->group(group)
      ->needs(url);
  app.add_option("--cacert", flags.tls.ca_file, "https: certificates to believe, in PEM (default: the system's)")
      ->check(CLI::ExistingFile)
      ->group(group)
      ->needs(url);
  CLI::Option* certificate = app.add_option("--cert", flags.tls.certificate_file,
                                            "https: this client's certificate, in PEM, for servers that ask")
                                 ->check(CLI::ExistingFile)
                                 ->group(group)
                                 ->needs(url);
  app.add_option("--key", flags.tls.key_file, "https: the key of --cert, where it is in a file of its own")
      ->check(CLI::ExistingFile)
      ->group(group)
      ->needs(certificate);
}

Result<std::unique_ptr<OpenAiClient>> connect_over_http(const UrlFlags& flags, const std::string& api_key,
                                                        const std::string& model) {
  std::string key = api_key;
  if (const char* given = std::getenv("LORIKEET_API_KEY"); key.empty() && given != nullptr) key = given;
  return OpenAiClient::connect({flags.url, key, model, flags.tls});
}

}  // namespace lorikeet::launcher
