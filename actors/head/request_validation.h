// What a client may ask for. Whatever is wrong with a request is found here and gets its sentence, before it costs
// anything.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "actors/head/adapter_names.h"
#include "actors/head/answer_rules.h"
#include "actors/head/chat_prompt.h"
#include "actors/head/text_stream.h"
#include "actors/wire/chat_options.h"
#include "comm/client/client_messages.h"
#include "engine/engine.h"
#include "engine/error.h"
#include "kernels/base/error.h"
#include "model/chat/chat_template.h"
#include "model/config/config.h"
#include "model/tokenizer/tokenizer.h"

namespace lorikeet::actors {

// What a checked request becomes.
struct PreparedRequest {
  engine::Request request;  // without its id; adapter is still a name
  TextStream::Options text;
  std::vector<int32_t> eos_token_ids;    // those of stop_token_ids that are the model's own
  std::optional<AnswerReading> reading;  // how its text is read, where it is not the answer itself
  bool prompt_only = false;              // max_tokens is 0: the engine generates one token even so, which is dropped
};

// The answer to a client whose request is refused.
comm::Failure failure_of(std::string id, const engine::RequestError& error);

using PreparationResult = tl::expected<PreparedRequest, engine::RequestError>;

// Ranges and defaults: formats reference, section 7 (vLLM's SamplingParams).
// Threads: const methods from any number of threads at once.
class RequestValidation {
 public:
  struct Context {
    model::ModelConfig config;
    model::GenerationDefaults defaults;
    std::shared_ptr<const model::Tokenizer> tokenizer;  // null: the checkpoint has none, and takes token ids alone
    Result<model::ChatTemplate> chat_template;          // an error refuses requests with messages, no others
    int32_t max_model_len = 0;
    AdapterNames adapters;  // that are served
    ChatOptions chat = {};
    std::shared_ptr<model::GrammarSource> grammars = nullptr;   // null: there are none
    int32_t max_answers = std::numeric_limits<int32_t>::max();  // that may run or wait at once
  };

  explicit RequestValidation(Context context) : context_(std::move(context)) {}

  // `drawn_seed` is used where the request has none.
  PreparationResult prepare(const comm::GenerateRequest& request, uint64_t drawn_seed) const;

  // The ids of its prompt, its prompt_token_ids or its messages, cut as truncate_prompt_tokens says; there may be none.
  tl::expected<std::vector<int32_t>, engine::RequestError> prompt_of(const comm::GenerateRequest& request) const;

  using Refusal = tl::expected<void, engine::RequestError>;

  Refusal check_adapter(const std::optional<std::string>& name) const;  // none: the base model
  Refusal check_answers(size_t answers, size_t n) const;  // to one request, all its prompts together; n: to a prompt
  Refusal check_tokens(const std::vector<int32_t>& ids) const;

  const Context& context() const { return context_; }

 private:
  Refusal check_timeout(const comm::GenerateRequest& request) const;
  tl::expected<ChatPrompt, engine::RequestError> read_prompt(const comm::GenerateRequest& request) const;
  Refusal set_answer(const comm::GenerateRequest& request, const std::string& opening, PreparedRequest& prepared) const;
  Refusal set_sampling(const comm::GenerateRequest& request, engine::SamplingParams& sampling) const;
  Refusal set_stops(const comm::GenerateRequest& request, PreparedRequest& prepared) const;
  Refusal set_constraints(const comm::GenerateRequest& request, engine::SamplingParams& sampling) const;
  static bool leaves_a_first_token(const engine::SamplingParams& sampling);
  std::vector<std::vector<int32_t>> bad_words_of(const comm::GenerateRequest& request) const;
  tl::expected<ChatPrompt, engine::RequestError> whole_prompt_of(const comm::GenerateRequest& request) const;
  Refusal set_length(const comm::GenerateRequest& request, PreparedRequest& prepared) const;
  // What ends an answer by itself: generation_config.json's tokens and the tokenizer's, as vLLM has it.
  std::vector<int32_t> end_tokens() const;
  std::vector<std::string> marked_stops(const comm::GenerateRequest& request) const;
  uint64_t rotary_base_of(size_t prompt_size) const;
  uint64_t cache_salt_of(const comm::GenerateRequest& request, size_t prompt_size) const;

  Context context_;
};

}  // namespace lorikeet::actors
