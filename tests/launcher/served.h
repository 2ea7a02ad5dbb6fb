// A running server for tests, and a client that collects whole answers.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "comm/client/zmq_client.h"
#include "tests/launcher/process.h"

namespace lorikeet::tests {

struct Answer {
  std::string text;
  std::vector<int32_t> token_ids;
  std::vector<comm::TokenLogprobs> logprobs;
  std::optional<comm::Done> done;
  std::optional<comm::Failure> failure;
  int final_answers = 0;

  bool ended() const { return final_answers > 0; }
};

// `lorikeet serve` with the example model (or the --model of the flags) and its adapters on an ipc socket of its own.
class Served {
 public:
  // err: where its standard error goes; empty: into a file (Process::err).
  explicit Served(const std::vector<std::string>& more_flags = {}, const std::filesystem::path& err = {});

  // Whether the server told that it serves; otherwise a test fails with its standard error.
  bool ready() const { return ready_; }
  Process& process() { return process_; }
  std::string address() const { return "ipc://" + (scratch_ / "zmq").string(); }
  std::string http_url() const;  // such as http://127.0.0.1:45671, once it is ready
  uint16_t http_port() const;
  const TempDir& scratch() const { return scratch_; }

  std::unique_ptr<comm::ZmqClient> connect() const;

  // Sends all requests at once and gives their answers in the same order.
  std::vector<Answer> ask(const std::vector<comm::GenerateRequest>& requests) const;
  Answer ask(const comm::GenerateRequest& request) const { return ask(std::vector{request}).front(); }

  nlohmann::json status() const;

 private:
  TempDir scratch_;
  Process process_;
  bool ready_ = false;
};

// Receives until each of `count` requests (ids "0", "1", ...) has its final answer; gives up after `seconds`.
std::vector<Answer> collect(comm::ZmqClient& client, size_t count, int seconds = 120);

// The 28 requests of the example model's reference outputs.
std::vector<comm::GenerateRequest> golden_generate_requests(const nlohmann::json& golden);

// With biases, forbidden words and tokens, and the end held back: all that a draw may be restrained by.
comm::GenerateRequest restrained(comm::GenerateRequest request);

// A short greedy request with the id "0".
comm::GenerateRequest greedy_request(const std::string& prompt, const std::optional<std::string>& adapter,
                                     int max_tokens);

nlohmann::json read_golden();

inline const std::vector<std::string>& example_flags() {
  static const std::vector<std::string> flags = {
      "--model",
      source_path("examples/models/tiny-qwen2-gptq-int4").string(),
      "--lora-modules",
      "shakespeare=" + source_path("examples/models/adapters/shakespeare").string(),
      "kjv=" + source_path("examples/models/adapters/kjv").string(),
      "moby=" + source_path("examples/models/adapters/moby").string(),
      "--device",
      "cpu"};
  return flags;
}

}  // namespace lorikeet::tests
