// From a request's messages to its prompt.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "actors/wire/chat_options.h"
#include "comm/client/client_messages.h"
#include "kernels/base/error.h"
#include "model/chat/chat_template.h"
#include "model/tokenizer/tokenizer.h"

namespace lorikeet::actors {

struct ChatPrompt {
  std::vector<int32_t> ids;
  std::string opening;  // what the answer continues: the end of the template's text, or of the message to be continued
};

// Errors: a sentence for the client. Threads: any.
Result<ChatPrompt> chat_prompt(const model::ChatTemplate& server_template, const model::Tokenizer& tokenizer,
                               const comm::GenerateRequest& request, const ChatOptions& options);

}  // namespace lorikeet::actors
