// GPT-2's byte alphabet: vocab.json, merges.txt and tokenizer.json spell each byte of a token as one printable
// character. Source: openai/gpt-2's bytes_to_unicode.
#pragma once

#include <string>
#include <string_view>

namespace lorikeet::model {

// Appends the bytes that `spelt` (UTF-8) stands for; false if a character is not of the alphabet.
bool append_spelt_bytes(std::string_view spelt, std::string* bytes);

}  // namespace lorikeet::model
