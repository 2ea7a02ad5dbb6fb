#include "launcher/served_summary.h"

#include <fmt/format.h>

#include <algorithm>

#include "launcher/help_formatter.h"
#include "launcher/server_connection.h"
#include "launcher/units.h"

namespace lorikeet::launcher {
namespace {

constexpr size_t kNameColumns = 12;  // columns of the names
constexpr size_t kAdaptersShown = 8;

std::string adapters_text(const actors::ServerOptions& options) {
  if (options.lora_modules.empty()) return "none";
  std::string text;
  for (size_t i = 0; i < options.lora_modules.size(); ++i) {
    if (i == kAdaptersShown)
      return text + fmt::format(", and {} more", count_text(static_cast<int64_t>(options.lora_modules.size() - i)));
    text += (i == 0 ? "" : ", ") + options.lora_modules[i].first;
  }
  return text;
}

// As clients on this host reach it.
std::string url_of(const actors::HttpDoorOptions& http, int32_t port) {
  std::string host = http.host == "0.0.0.0" || http.host == "::" ? "localhost" : http.host;
  if (host.find(':') != std::string::npos) host = "[" + host + "]";
  return fmt::format("{}://{}:{}{}/v1", http.ssl_certfile.empty() ? "http" : "https", host, port, http.root_path);
}

// A word of a shell.
std::string in_quotes(const std::string& word) {
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string json_text(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

// Over HTTP; keys of CURVE are ZeroMQ's alone.
bool asks_for_keys(const actors::AccessOptions& access) {
  return std::any_of(access.credentials.begin(), access.credentials.end(),
                     [](const actors::CredentialOptions& credential) { return !credential.key.empty(); });
}

}  // namespace

std::string served_summary(const actors::ServerOptions& options, const actors::ServerReady& ready,
                           const Terminal& terminal, bool has_tokenizer, const std::set<std::string>& refused) {
  std::string out;
  const auto line = [&](const std::string& name, const std::string& text) {
    out += "  " + coloured(terminal, "1", padded(name, kNameColumns)) +
           wrap(text, terminal.columns - kNameColumns - 2, kNameColumns + 2) + "\n";
  };
  const auto served = std::find_if(options.lora_modules.begin(), options.lora_modules.end(),
                                   [&](const auto& module) { return refused.count(module.first) == 0; });
  const std::string adapter = served == options.lora_modules.end() ? "" : served->first;
  const std::string model = adapter.empty() ? options.served_model_name : adapter;
  line("ranks", fmt::format("{} on {}; the KV cache holds {} tokens", options.tensor_parallel_size, options.device,
                            count_text(ready.kv_cache_tokens)));
  line("adapters", adapters_text(options));
  const std::string& mechanism = options.access.zmq_mechanism;
  line("ZeroMQ", ready.zmq_address + (mechanism.empty() ? "" : ", for clients with keys (" + mechanism + ")"));
  if (ready.http_port > 0) {
    const std::string url = url_of(options.http, ready.http_port);
    line("OpenAI API", url);
    line("live page", url.substr(0, url.rfind('/') + 1));
  }
  out += coloured(terminal, "1", "try") + "\n";
  const std::string zmq = ready.zmq_address == kDefaultZmq ? "" : fmt::format(" --zmq {}", ready.zmq_address);
  out += fmt::format("  lorikeet submit{}{} {}\n", zmq, adapter.empty() ? "" : " --adapter " + in_quotes(adapter),
                     has_tokenizer ? "\"Once upon a time\"" : "--prompt-token-ids 1,2,3 --json");
  if (ready.http_port > 0) {
    const std::string key = !asks_for_keys(options.access) ? "" : " -H \"Authorization: Bearer $LORIKEET_API_KEY\"";
    out += fmt::format(
        "  curl {}/completions{} -H 'Content-Type: application/json' \\\n    -d {}\n",
        url_of(options.http, ready.http_port), key,
        in_quotes(fmt::format("{{\"model\": {}, \"prompt\": {}}}", json_text(model),
                              has_tokenizer ? "\"Once upon a time\"" : "[1, 2, 3], \"return_token_ids\": true")));
  } else {
    out += fmt::format("  lorikeet status{} --watch\n", zmq);
  }
  out.pop_back();
  return out;
}

}  // namespace lorikeet::launcher
