// The first message of a worker over its connection: 4 bytes of length, little endian, then this struct, encoded.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lorikeet::comm {

struct FirstWords {
  std::string token;
  std::vector<uint8_t> words;  // for the listener's owner

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("token", s.token);
    visit("words", s.words);
  }
};

inline constexpr size_t kFirstWordsHeader = 4;

}  // namespace lorikeet::comm
