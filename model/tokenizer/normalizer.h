// Unicode's NFC, by utf8proc.
#pragma once

#include <string>
#include <string_view>

namespace lorikeet::model {

// Whether text (valid UTF-8) is NFC as it stands, by ranges of characters: true is certain, false only means that
// append_nfc has to look.
bool is_surely_nfc(std::string_view text);

// Appends the NFC of text (valid UTF-8) to out.
void append_nfc(std::string_view text, std::string* out);

}  // namespace lorikeet::model
