#include "model/tokenizer/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "model/tokenizer/utf8.h"

namespace lorikeet::model {
namespace {

constexpr size_t kAlphabetEnd = 256 + 68;  // 68 bytes are not printable as they are: they follow 255

// Code point -> byte; -1: not of the alphabet.
std::array<int16_t, kAlphabetEnd> make_byte_of() {
  std::array<int16_t, kAlphabetEnd> byte_of;
  byte_of.fill(-1);
  size_t next = 256;
  for (int16_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    byte_of[printable ? static_cast<size_t>(byte) : next++] = byte;
  }
  return byte_of;
}

}  // namespace

bool append_spelt_bytes(std::string_view spelt, std::string* bytes) {
  static const std::array<int16_t, kAlphabetEnd> kByteOf = make_byte_of();
  while (!spelt.empty()) {
    const Utf8Head head = utf8_head(spelt);
    if (!head.valid || head.code_point >= kAlphabetEnd || kByteOf[head.code_point] < 0) return false;
    bytes->push_back(static_cast<char>(kByteOf[head.code_point]));
    spelt.remove_prefix(head.length);
  }
  return true;
}

}  // namespace lorikeet::model
