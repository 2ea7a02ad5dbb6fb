// What a chat template is told of a conversation.
#pragma once

#include <string>
#include <vector>

#include "kernels/base/error.h"
#include "model/chat/chat_message.h"
#include "model/chat/jinja/evaluator.h"

namespace lorikeet::model {

// What continue_final_message puts behind the last message, and where the prompt is cut.
inline constexpr std::string_view kContinueMark = "CONTINUE_FINAL_MESSAGE_TAG ";

// messages, tools, documents, add_generation_prompt and what options.variables names. Strings are a client's. Fails on
// what is not JSON, naming it.
Result<jinja::Evaluator::Variables> chat_variables(const std::vector<ChatMessage>& messages,
                                                   const ChatOptions& options);

}  // namespace lorikeet::model
