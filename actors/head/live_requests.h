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

struct LiveRequest {
  LiveRequest(TextStream stream) : text(std::move(stream)) {}

  uint64_t client = 0;
  std::string name;  // the client's own
  TextStream text;
  std::optional<model::AnswerParser> parser;  // where the text holds more than what is said
  bool shows_reasoning = true, calls_end_it = true;
  int32_t reasoning_tokens = 0;
  std::vector<int32_t> eos_token_ids;
  std::vector<std::optional<float>> prompt_logprobs;  // [prompt] where asked for, else empty
  std::vector<int32_t> prompt_ranks;                  // likewise
  std::vector<comm::TokenLogprobs> prompt_top_logprobs;
  bool wants_logprobs = false;
  bool prompt_only = false;  // no token belongs to the answer
  uint64_t seed = 0;
  int32_t prompt_tokens = 0;
  int32_t completion_tokens = 0;
  std::vector<int32_t> prompt_token_ids;  // where asked for, else empty
  std::string tenant;
  int64_t charged_tokens = 0;  // of the tenant's tokens in flight
  std::optional<std::chrono::steady_clock::time_point> deadline;
  std::string time_limit;  // that the deadline comes from, for a sentence
  bool ended = false;      // by a stop string: what the engine still says of it is not part of the answer
  bool timed_out = false;  // it was ended since it took too long
  bool abandoned = false;  // the client is gone: nobody is to be answered
  comm::Delta delta;       // what has come and has not been sent
};

// Threads: one.
class LiveRequests {
 public:
  // The client must not have another request of that name (find).
  LiveRequest& add(engine::SequenceId id, uint64_t client, const std::string& name, TextStream text);

  LiveRequest* find(engine::SequenceId id);
  std::optional<engine::SequenceId> find(uint64_t client, const std::string& name) const;

  void erase(engine::SequenceId id);

  // The client is gone: its requests, from now on without a client and without names.
  std::vector<engine::SequenceId> abandon(uint64_t client);

  std::vector<engine::SequenceId> ids() const;
  size_t size() const { return requests_.size(); }

 private:
  std::unordered_map<engine::SequenceId, LiveRequest> requests_;
  std::map<uint64_t, std::map<std::string, engine::SequenceId>> names_;  // client -> name -> id
};

}  // namespace lorikeet::actors
