// Unicode's NFC, by utf8proc.
#pragma once

#include <string>
#include <string_view>

namespace lorikeet::model {

// text is valid UTF-8. True: text is NFC as it stands. False: it may or may not be; the check is quick, by ranges.
bool is_surely_nfc(std::string_view text);

std::string to_nfc(std::string_view text);

}  // namespace lorikeet::model
