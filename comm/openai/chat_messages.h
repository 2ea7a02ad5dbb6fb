// The field `messages` of a chat.
#pragma once

#include <vector>

#include "comm/client/client_messages.h"
#include "comm/openai/body_reader.h"

namespace lorikeet::comm {

// Contents may be strings, null, or lists of parts of the type text. What is wrong is told to `body`.
std::vector<Message> read_messages(BodyReader& body);

}  // namespace lorikeet::comm
