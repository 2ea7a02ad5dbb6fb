// A streaming client of OpenAI's API over HTTP, for this server, vLLM or any other. It gives answers as messages of the
// client protocol, so that its users need not care whether a server is reached over HTTP or ZeroMQ.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "comm/client/server_client.h"
#include "comm/http/http_client.h"

namespace lorikeet::launcher {

// Errors: it is no such URL; a sentence that begins with it.
Result<void> check_server_url(const std::string& url);

struct OpenAiServer {
  std::string url;           // http://HOST:PORT or https://..., with /v1 or without
  std::string api_key;       // empty: none
  std::string model;         // that requests without an adapter ask for; empty: the first that the server names
  comm::ClientTls tls = {};  // for https
};

// Tokens come without their ids: a delta has one -1 for each piece of text that came, and `done` has the server's count
// in its usage. Requests may ask for text, token ids or messages. Cancelling ends the connection.
class OpenAiClient : public comm::ServerClient {
 public:
  // Asks the server for its models. Errors: the URL, nobody answers, the answer is none of OpenAI's API.
  static Result<std::unique_ptr<OpenAiClient>> connect(const OpenAiServer& server);

  virtual const std::vector<std::string>& models() const = 0;  // as the server names them, adapters among them
  virtual const std::string& base_model() const = 0;
};

// "/v1/completions" or "/v1/chat/completions" with its body, for a request.
struct OpenAiCall {
  std::string path, body;
};
OpenAiCall openai_call(const comm::GenerateRequest& request, const std::string& base_model);

// One event of the stream, translated for the request `id`.
struct OpenAiChunk {
  std::string text;
  std::string reasoning;  // of the model, before the answer
  bool counts = false;    // it is of at least one token
  std::string finish_reason;
  comm::Usage usage;
  bool has_usage = false;
  std::string error;  // not empty: the request has failed
};
OpenAiChunk read_openai_chunk(const std::string& data);

}  // namespace lorikeet::launcher
