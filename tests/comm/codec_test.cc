#include "comm/codec.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>

namespace lorikeet::comm {
namespace {

struct Pairs {
  std::vector<std::pair<std::string, std::optional<int32_t>>> pairs;
  double number = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("pairs", s.pairs);
    visit("number", s.number);
  }
};

TEST(Codec, ReturnsWhatWasEncoded) {
  Pairs value;
  value.pairs = {{"x", 1}, {"y", std::nullopt}};
  value.number = 3;
  const Result<Pairs> decoded = decode<Pairs>(encode(value));
  ASSERT_TRUE(decoded) << decoded.error().message;
  EXPECT_EQ(decoded->pairs, value.pairs);
  EXPECT_EQ(decoded->number, 3);
}

TEST(Codec, NamesTheFieldAtWhichTheBytesEnd) {
  std::vector<uint8_t> bytes = encode(Pairs{});
  bytes.pop_back();
  const Result<Pairs> decoded = decode<Pairs>(bytes);
  ASSERT_FALSE(decoded);
  EXPECT_EQ(decoded.error().message, "malformed message: number: 1 elements of 8 bytes where 7 bytes are left");
}

}  // namespace
}  // namespace lorikeet::comm
