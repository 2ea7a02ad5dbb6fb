// Replacing parts of strings.
#pragma once

#include <cstdint>

#include "model/chat/jinja/text.h"

namespace lorikeet::model::jinja {

// As str.replace: at most `most` times, below 0 as often as it is found.
Text replaced(const Text& text, const Text& from, const Text& to, int64_t most);

}  // namespace lorikeet::model::jinja
