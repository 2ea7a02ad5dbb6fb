// The fields of a chat that reach its template, as OpenAI and vLLM name them.
#pragma once

#include "comm/client/client_messages.h"
#include "comm/openai/body_reader.h"

namespace lorikeet::comm {

// messages, tools, documents, chat_template, chat_template_kwargs, add_generation_prompt and continue_final_message.
// Contents may be strings, null beside calls, or lists of parts with text. What is wrong is told to `body`.
void read_chat_fields(BodyReader& body, GenerateRequest& to);

}  // namespace lorikeet::comm
