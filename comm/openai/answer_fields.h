// The fields that put conditions on an answer: its format, tool calls, reasoning. Names are OpenAI's and vLLM's, the older
// guided_* among them.
#pragma once

#include "comm/client/client_messages.h"
#include "comm/openai/body_reader.h"

namespace lorikeet::comm {

// Of any request: response_format, structured_outputs, guided_*.
void read_format_fields(BodyReader& body, GenerateRequest& to);

// Of a chat: tool_choice, parallel_tool_calls, reasoning_effort, thinking_budget, include_reasoning.
void read_tool_fields(BodyReader& body, GenerateRequest& to);

}  // namespace lorikeet::comm
