// The flags of commands that can reach a server over HTTP instead of ZeroMQ. Those for TLS have curl's names.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "comm/http/http_client.h"
#include "kernels/base/error.h"
#include "launcher/openai_client.h"

namespace lorikeet::launcher {

struct UrlFlags {
  std::string url;  // empty: over ZeroMQ
  comm::ClientTls tls;
};

void add_url_flags(CLI::App& app, UrlFlags& flags);

// api_key empty: LORIKEET_API_KEY, where there is one. model: as OpenAiServer has it.
Result<std::unique_ptr<OpenAiClient>> connect_over_http(const UrlFlags& flags, const std::string& api_key,
                                                        const std::string& model);

}  // namespace lorikeet::launcher
