// What a request wants of its answer: tools to be called, reasoning, a grammar. It becomes what the ranks hold the answer
// to and how its text is read.
#pragma once

#include <optional>
#include <string>

#include "actors/wire/chat_options.h"
#include "comm/client/client_messages.h"
#include "engine/sampling_params.h"
#include "kernels/base/error.h"
#include "model/chat/answer/answer_parser.h"
#include "model/grammar/grammar_source.h"
#include "model/tokenizer/tokenizer.h"

namespace lorikeet::actors {

// How the text of an answer is read.
struct AnswerReading {
  model::AnswerParser::Options parser;
  bool shows_reasoning = true;
  bool calls_end_it = true;  // an answer with calls ends for `tool_calls`; not where the request names the tool
};

struct PreparedAnswer {
  engine::AnswerRules rules;             // without stop ids
  std::optional<AnswerReading> reading;  // none: the text is the answer
};

// opening: the prompt's last words (ChatPrompt). Compiles the grammar, to know that it can be: takes its time.
// Errors: a sentence for the client.
Result<PreparedAnswer> answer_rules(const comm::GenerateRequest& request, const ChatOptions& options,
                                    const std::string& opening, const model::Tokenizer* tokenizer,
                                    model::GrammarSource* grammars);

// Whether a request's answer follows a grammar, so that answer_rules is not for a thread that must not wait.
bool wants_grammar(const comm::GenerateRequest& request);

}  // namespace lorikeet::actors
