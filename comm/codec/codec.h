// Any struct with one static fields(self, visit) as bytes and back, through cereal's portable binary archive.
//
//   struct Point {
//     int32_t x, y;
//     template <class Self, class Visitor>
//     static void fields(Self& s, Visitor&& visit) {
//       visit("x", s.x);
//       visit("y", s.y);
//     }
//   };
//
// Members may be arithmetic, bool, enum, std::string, std::vector, std::optional, std::pair, std::variant, structs with
// fields(), and classes that have a plain form: a type Plain of these, `Plain plain() const`, and
// `static T from_plain(const Plain&)`, which takes any value.
// Decoding treats the bytes as hostile: sizes are checked against what is left before anything is allocated, nesting is
// what the types say, the end must be reached. Layout: one version byte, then cereal's portable binary.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/base/error.h"

namespace lorikeet::comm {

template <class T>
std::vector<uint8_t> encode(const T& value);

template <class T>
Result<T> decode(std::span<const uint8_t> bytes);

}  // namespace lorikeet::comm

#include "comm/codec/codec_impl.h"
