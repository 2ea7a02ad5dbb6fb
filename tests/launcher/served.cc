#include "tests/launcher/served.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>

namespace lorikeet::tests {
namespace {

std::vector<std::string> serve_flags(const TempDir& scratch, const std::vector<std::string>& more) {
  std::vector<std::string> flags = {"serve", "--zmq", "ipc://" + (scratch / "zmq").string()};
  const bool other_model = std::find(more.begin(), more.end(), "--model") != more.end();
  flags.insert(flags.end(), example_flags().begin() + (other_model ? 2 : 0), example_flags().end());
  flags.insert(flags.end(), more.begin(), more.end());
  if (std::find(more.begin(), more.end(), "--port") == more.end()) flags.insert(flags.end(), {"--port", "0"});
  return flags;
}

}  // namespace

Served::Served(const std::vector<std::string>& more_flags, const std::filesystem::path& err)
    : process_(serve_flags(scratch_, more_flags), scratch_, "serve", err) {
  ready_ = process_.wait_for_output("serving ");
}

std::string Served::http_url() const {
  const std::string err = process_.err();
  const std::string before = "OpenAI API at ";
  const size_t begin = err.find(before);
  if (begin == std::string::npos) return "";
  const size_t url = begin + before.size();
  return err.substr(url, err.find("/v1\n", url) - url);
}

uint16_t Served::http_port() const {
  const std::string url = http_url();
  return static_cast<uint16_t>(std::strtoul(url.substr(url.rfind(':') + 1).c_str(), nullptr, 10));
}

std::unique_ptr<comm::ZmqClient> Served::connect() const {
  return comm::ZmqClient::connect(address()).value();
}

std::vector<Answer> Served::ask(const std::vector<comm::GenerateRequest>& requests) const {
  const auto client = connect();
  for (size_t i = 0; i < requests.size(); ++i) {
    comm::GenerateRequest request = requests[i];
    request.id = std::to_string(i);
    EXPECT_TRUE(client->send(request).has_value());
  }
  return collect(*client, requests.size());
}

nlohmann::json Served::status() const {
  const auto client = connect();
  EXPECT_TRUE(client->send(comm::StatusRequest{"s"}).has_value());
  for (int i = 0; i < 300; ++i) {
    const auto message = client->receive(std::chrono::milliseconds(100));
    if (message && std::holds_alternative<comm::StatusReply>(*message)) {
      return nlohmann::json::parse(std::get<comm::StatusReply>(*message).json);
    }
  }
  return {};
}

std::vector<Answer> collect(comm::ZmqClient& client, size_t count, int seconds) {
  std::vector<Answer> answers(count);
  const auto answer_of = [&](const std::string& id) -> Answer* {
    size_t index = count;
    std::from_chars(id.data(), id.data() + id.size(), index);
    return index < count ? &answers[index] : nullptr;
  };
  size_t running = count;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  while (running > 0 && std::chrono::steady_clock::now() < end) {
    auto message = client.receive(std::chrono::milliseconds(100));
    if (!message) continue;
    if (auto* delta = std::get_if<comm::Delta>(&*message)) {
      if (Answer* a = answer_of(delta->id)) {
        a->text += delta->text;
        a->token_ids.insert(a->token_ids.end(), delta->token_ids.begin(), delta->token_ids.end());
        a->logprobs.insert(a->logprobs.end(), delta->logprobs.begin(), delta->logprobs.end());
      }
    } else if (auto* done = std::get_if<comm::Done>(&*message)) {
      if (Answer* a = answer_of(done->id)) {
        running -= a->final_answers++ == 0 ? 1 : 0;
        a->done = std::move(*done);
      }
    } else if (auto* failure = std::get_if<comm::Failure>(&*message)) {
      if (Answer* a = answer_of(failure->id)) {
        running -= a->final_answers++ == 0 ? 1 : 0;
        a->failure = std::move(*failure);
      }
    }
  }
  return answers;
}

std::vector<comm::GenerateRequest> golden_generate_requests(const nlohmann::json& golden) {
  std::vector<comm::GenerateRequest> requests;
  for (const nlohmann::json& c : golden["cases"]) {
    comm::GenerateRequest request;
    request.prompt_token_ids = c["prompt_ids"].get<std::vector<int32_t>>();
    if (!c["adapter"].is_null()) request.adapter = c["adapter"].get<std::string>();
    request.max_tokens = static_cast<int32_t>(c["token_ids"].size());
    request.temperature = 0;
    request.top_p = 1;
    request.top_k = 0;
    request.repetition_penalty = 1;
    request.logprobs = 5;
    request.prompt_logprobs = true;
    request.ignore_eos = true;
    requests.push_back(std::move(request));
  }
  return requests;
}

comm::GenerateRequest restrained(comm::GenerateRequest request) {
  request.logit_bias = {{5, 2.5}, {300, -3}, {301, 1}};
  request.bad_words = {"the", "of the", "and"};
  request.min_tokens = request.max_tokens;
  request.ignore_eos = false;
  request.allowed_token_ids.emplace();
  for (int32_t id = 0; id < 2048; ++id) {
    if (id % 7 != 0) request.allowed_token_ids->push_back(id);
  }
  return request;
}

comm::GenerateRequest greedy_request(const std::string& prompt, const std::optional<std::string>& adapter,
                                     int max_tokens) {
  comm::GenerateRequest request;
  request.id = "0";
  request.prompt = prompt;
  request.adapter = adapter;
  request.max_tokens = max_tokens;
  request.temperature = 0;
  request.repetition_penalty = 1;
  request.ignore_eos = true;
  return request;
}

nlohmann::json read_golden() {
  return nlohmann::json::parse(read_file(source_path("tests/data/tiny-qwen2-gptq-int4.golden.json")));
}

}  // namespace lorikeet::tests
