// What a request demands of its answer (tool calls, reasoning, a grammar) becomes two things: the rules that the ranks
// enforce while they draw tokens, and the way in which the gateway reads the text.
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
  bool calls_end_it =
      true;  // finish_reason is `tool_calls` where there are calls; false where the request names the tool
};

struct PreparedAnswer {
  engine::AnswerRules rules;             // without stop ids
  std::optional<AnswerReading> reading;  // none: the text is the answer
};

// opening: the prompt's last words (ChatPrompt). Slow where there is a grammar, which is compiled to see that it can be.
// Errors: a sentence for the client.
Result<PreparedAnswer> answer_rules(const comm::GenerateRequest& request, const ChatOptions& options,
                                    const std::string& opening, const model::Tokenizer* tokenizer,
                                    model::GrammarSource* grammars);

// Whether the answer follows a grammar: then answer_rules() must not run on a thread that may not wait.
bool wants_grammar(const comm::GenerateRequest& request);

}  // namespace lorikeet::actors
