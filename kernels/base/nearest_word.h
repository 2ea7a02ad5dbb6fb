// A guess at what was meant by a word that is not known.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lorikeet {

// The word of `known` that is closest to `word`, if that is within a third of its letters; else empty. Letters are
// bytes. Takes time with the product of the lengths: callers bound both, and how many are known.
std::string nearest_word(std::string_view word, const std::vector<std::string>& known);

}  // namespace lorikeet
