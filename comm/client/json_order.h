// The order in which a client wrote the keys of what its request only hands on. A chat template shows tools as they
// were written, and models were trained on that order; a parsed document has lost it.
#pragma once

#include <string_view>

#include "comm/client/client_messages.h"

namespace lorikeet::comm {

// `text` is the JSON that `request` was read from, as an object with OpenAI's or GenerateRequest's names. Members whose
// names are written with escapes keep the document's order.
void keep_written_order(std::string_view text, GenerateRequest& request);

// The value of a member of an object, as it was written; empty where there is none of that name.
std::string_view written_member(std::string_view object, std::string_view name);

}  // namespace lorikeet::comm
