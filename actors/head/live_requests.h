// The requests that have been admitted and not answered, by sequence and by the client's own name for them.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "actors/head/text_stream.h"
#include "comm/client/client_messages.h"
#include "engine/engine.h"
#include "model/chat/answer/answer_parser.h"

namespace lorikeet::actors {

// The answers to one request that asked for several.
struct Choices {
  int32_t n = 1;
  int32_t running = 1;
  int32_t longest = 0;  // of those that have ended, in tokens
};

// One answer.
struct LiveRequest {
  LiveRequest(TextStream stream) : text(std::move(stream)) {}

  uint64_t client = 0;
  std::string name;              // the client's own
  std::optional<int32_t> index;  // of the answer, where the client asked for several
  std::shared_ptr<Choices> choices = std::make_shared<Choices>();
  TextStream text;
  std::optional<model::AnswerParser> parser;  // where the text holds more than what is said
  bool shows_reasoning = true, calls_end_it = true;
  int32_t reasoning_tokens = 0;
  std::vector<int32_t> eos_token_ids;
  std::vector<std::optional<float>> prompt_logprobs;  // [prompt] where asked for, else empty
  std::vector<int32_t> prompt_ranks;                  // likewise
  std::vector<comm::TokenLogprobs> prompt_top_logprobs;
  bool early_prompt_logprobs = false;  // they go out with the first delta, and have not yet
  bool wants_logprobs = false;
  bool prompt_only = false;  // no token belongs to the answer
  uint64_t seed = 0;
  int32_t prompt_tokens = 0;
  int32_t completion_tokens = 0;
  std::vector<int32_t> prompt_token_ids;  // where asked for, else empty
  std::string tenant;
  int64_t charged_tokens = 0;  // of the tenant's tokens in flight
  std::optional<std::chrono::steady_clock::time_point> deadline;
  std::string time_limit;  // where the deadline comes from, for error messages
  bool ended = false;      // by a stop string: what the engine still says of it is not part of the answer
  bool timed_out = false;  // ended because it took too long
  bool abandoned = false;  // nobody is to be answered: the client is gone, or another choice of the request has failed
  bool client_gone = false;  // abandoned for that
  comm::Delta delta;         // what has come and has not been sent
};

// Threads: one.
class LiveRequests {
 public:
  // The client must not have another request of that name (find). Several answers to one are added in order.
  LiveRequest& add(engine::SequenceId id, uint64_t client, const std::string& name, TextStream text,
                   std::optional<int32_t> index = std::nullopt);

  LiveRequest* find(engine::SequenceId id);
  std::optional<engine::SequenceId> find(uint64_t client, const std::string& name) const;   // its first answer
  std::vector<engine::SequenceId> choices(uint64_t client, const std::string& name) const;  // all that have not ended

  void erase(engine::SequenceId id);

  enum class Client : uint8_t { left, answered };

  // The client has left, or has its answer. Returns its requests, which have no client and no name from now on.
  std::vector<engine::SequenceId> abandon(uint64_t client, Client why = Client::left);
  // The same of one request, one of whose answers has failed.
  std::vector<engine::SequenceId> abandon(uint64_t client, const std::string& name);

  std::vector<engine::SequenceId> ids() const;
  size_t size() const { return requests_.size(); }

 private:
  std::unordered_map<engine::SequenceId, LiveRequest> requests_;
  using Ids = std::vector<engine::SequenceId>;            // of the answers to a request
  std::map<uint64_t, std::map<std::string, Ids>> names_;  // client -> name -> ids
};

}  // namespace lorikeet::actors
