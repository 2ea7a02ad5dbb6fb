#include "comm/codec/codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cereal/archives/portable_binary.hpp>
#include <cereal/types/string.hpp>
#include <cereal/types/utility.hpp>
#include <cereal/types/vector.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <variant>

#include "tests/comm/codec/allocation_limit.h"

namespace lorikeet::comm {
namespace {

using ::testing::HasSubstr;

enum class Colour : uint8_t { red, green, blue };
constexpr Colour last_enumerator(Colour) {
  return Colour::blue;
}

enum class Signed : int32_t { zero, one };
constexpr Signed last_enumerator(Signed) {
  return Signed::one;
}

struct Inner {
  std::string name;
  std::vector<float> values;
  bool operator==(const Inner&) const = default;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("name", s.name);
    visit("values", s.values);
  }
};

class Hidden {  // fields() may be all that is public
 public:
  Hidden() = default;
  explicit Hidden(int64_t value) : value_(value) {}
  bool operator==(const Hidden&) const = default;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("value", s.value_);
  }

 private:
  int64_t value_ = 0;
};

struct Everything {
  bool yes = false;
  uint8_t u8 = 0;
  int8_t i8 = 0;
  uint16_t u16 = 0;
  int32_t i32 = 0;
  uint64_t u64 = 0;
  float f = 0;
  double d = 0;
  Colour colour = Colour::red;
  Signed sign = Signed::zero;
  std::string text;
  std::vector<uint8_t> bytes;
  std::vector<double> doubles;
  std::vector<std::string> strings;
  std::vector<std::vector<int32_t>> nested;
  std::vector<Inner> structs;
  std::vector<Colour> colours;
  std::vector<std::optional<float>> maybe;
  std::optional<std::string> absent, present;
  std::optional<std::vector<Inner>> list;
  std::pair<int32_t, std::string> pair;
  std::vector<std::pair<int32_t, float>> pairs;
  Hidden hidden;
  Inner inner;

  bool operator==(const Everything&) const = default;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("yes", s.yes);
    visit("u8", s.u8);
    visit("i8", s.i8);
    visit("u16", s.u16);
    visit("i32", s.i32);
    visit("u64", s.u64);
    visit("f", s.f);
    visit("d", s.d);
    visit("colour", s.colour);
    visit("sign", s.sign);
    visit("text", s.text);
    visit("bytes", s.bytes);
    visit("doubles", s.doubles);
    visit("strings", s.strings);
    visit("nested", s.nested);
    visit("structs", s.structs);
    visit("colours", s.colours);
    visit("maybe", s.maybe);
    visit("absent", s.absent);
    visit("present", s.present);
    visit("list", s.list);
    visit("pair", s.pair);
    visit("pairs", s.pairs);
    visit("hidden", s.hidden);
    visit("inner", s.inner);
  }
};

Everything specimen() {
  Everything e;
  e.yes = true;
  e.u8 = 255;
  e.i8 = -128;
  e.u16 = 65535;
  e.i32 = std::numeric_limits<int32_t>::min();
  e.u64 = std::numeric_limits<uint64_t>::max();
  e.f = -0.0F;
  e.d = std::numeric_limits<double>::infinity();
  e.colour = Colour::blue;
  e.sign = Signed::one;
  e.text = std::string("a\0b", 3);
  e.bytes = {0, 255, 7};
  e.doubles = {1.5, -2.25};
  e.strings = {"", "x", std::string(1000, 'y')};
  e.nested = {{}, {1}, {2, 3}};
  e.structs = {{"one", {1}}, {"none", {}}};
  e.colours = {Colour::green, Colour::red};
  e.maybe = {std::nullopt, 1.F, std::nullopt};
  e.present = "here";
  e.list = std::vector<Inner>{{"in", {4, 5}}};
  e.pair = {-1, "minus one"};
  e.pairs = {{1, 1.F}, {2, 2.F}};
  e.hidden = Hidden(-5);
  e.inner = {"inner", {9}};
  return e;
}

TEST(Codec, ReturnsEveryKindOfMember) {
  const Result<Everything> decoded = decode<Everything>(encode(specimen()));
  ASSERT_TRUE(decoded) << decoded.error().message;
  EXPECT_EQ(*decoded, specimen());
  EXPECT_TRUE(std::signbit(decoded->f));
  const Result<Everything> empty = decode<Everything>(encode(Everything{}));
  ASSERT_TRUE(empty) << empty.error().message;
  EXPECT_EQ(*empty, Everything{});
}

TEST(Codec, KeepsTheBitsOfFloats) {
  Inner inner;
  for (const uint32_t bits : {0x7FC00000U, 0xFFC12345U, 0x7F800000U, 0x80000000U, 0x00000001U}) {
    inner.values.push_back(std::bit_cast<float>(bits));
  }
  const Result<Inner> decoded = decode<Inner>(encode(inner));
  ASSERT_TRUE(decoded);
  for (size_t i = 0; i < inner.values.size(); ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(decoded->values[i]), std::bit_cast<uint32_t>(inner.values[i]));
  }
}

TEST(Codec, WritesWhatCerealsPortableBinaryArchiveReads) {
  const Inner inner{"name", {1, 2.5F}};
  const std::vector<uint8_t> bytes = encode(inner);
  EXPECT_EQ(bytes[0], 1) << "version";
  std::istringstream stream(std::string(bytes.begin() + 1, bytes.end()));
  cereal::PortableBinaryInputArchive archive(stream);
  std::string name;
  std::vector<float> values;
  archive(name, values);
  EXPECT_EQ(name, inner.name);
  EXPECT_EQ(values, inner.values);
}

TEST(Codec, ReadsWhatCerealsPortableBinaryArchiveWroteInEitherByteOrder) {
  using Options = cereal::PortableBinaryOutputArchive::Options;
  for (const Options& options : {Options::LittleEndian(), Options::BigEndian()}) {
    std::ostringstream stream;
    stream.put(1);
    {
      cereal::PortableBinaryOutputArchive archive(stream, options);
      archive(std::string("name"), std::vector<float>{1, 2.5F});
    }
    const std::string bytes = stream.str();
    const Result<Inner> decoded = decode<Inner>({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
    ASSERT_TRUE(decoded) << decoded.error().message;
    EXPECT_EQ(*decoded, (Inner{"name", {1, 2.5F}}));
  }
}

template <class T>
std::string error_of(std::vector<uint8_t> bytes) {
  const Result<T> decoded = decode<T>(bytes);
  return decoded ? "decoded" : decoded.error().message;
}

TEST(Codec, RefusesAnotherVersion) {
  std::vector<uint8_t> bytes = encode(Inner{});
  bytes[0] = 2;
  EXPECT_EQ(error_of<Inner>(bytes), "encoding version 2 where 1 was expected");
  EXPECT_EQ(error_of<Inner>({}), "no bytes where an encoded message was expected");
}

TEST(Codec, RefusesAnImpossibleByteOrder) {
  std::vector<uint8_t> bytes = encode(Inner{});
  bytes[1] = 2;
  EXPECT_EQ(error_of<Inner>(bytes), "malformed message: byte order 2 where 0 or 1 was expected");
}

TEST(Codec, RefusesBytesAfterTheEnd) {
  std::vector<uint8_t> bytes = encode(Inner{});
  bytes.push_back(0);
  EXPECT_EQ(error_of<Inner>(bytes), "1 bytes too many after the message");
}

TEST(Codec, RefusesEveryTruncation) {
  const std::vector<uint8_t> bytes = encode(specimen());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_NE(error_of<Everything>({bytes.begin(), bytes.begin() + size}), "decoded") << size;
  }
}

TEST(Codec, NamesTheFieldAtWhichTheBytesEnd) {
  std::vector<uint8_t> bytes = encode(Inner{"x", {1, 2}});
  bytes.pop_back();
  EXPECT_EQ(error_of<Inner>(bytes), "malformed message: values: a count of 2 where 7 bytes are left");
}

struct Flag {
  bool flag = false;
  std::optional<uint8_t> maybe;
  Colour colour = Colour::red;
  Signed sign = Signed::zero;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("flag", s.flag);
    visit("maybe", s.maybe);
    visit("colour", s.colour);
    visit("sign", s.sign);
  }
};

TEST(Codec, RefusesBooleansOptionalsAndEnumsOutOfRange) {
  // version, byte order, flag, absent, colour, sign (4)
  const std::vector<uint8_t> good = {1, 1, 1, 1, 2, 1, 0, 0, 0};
  EXPECT_EQ(error_of<Flag>(good), "decoded");
  const auto with = [&good](size_t at, uint8_t value) {
    std::vector<uint8_t> bytes = good;
    bytes[at] = value;
    return error_of<Flag>(bytes);
  };
  EXPECT_EQ(with(2, 2), "malformed message: flag: 2 where a boolean was expected");
  EXPECT_EQ(with(3, 255), "malformed message: maybe: 255 where a boolean was expected");
  EXPECT_EQ(with(4, 3), "malformed message: colour: 3 where 0 .. 2 was expected");
  EXPECT_EQ(with(5, 2), "malformed message: sign: 2 where 0 .. 1 was expected");
  EXPECT_EQ(with(8, 0x80), "malformed message: sign: -2147483647 where 0 .. 1 was expected");
}

struct Lists {
  std::string text;
  std::vector<double> numbers;
  std::vector<Everything> structs;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("text", s.text);
    visit("numbers", s.numbers);
    visit("structs", s.structs);
  }
};

TEST(Codec, AllocatesNothingForAForgedCount) {
  const std::vector<uint8_t> good = encode(Lists{});
  ASSERT_EQ(good.size(), 2u + 3 * 8);
  for (const size_t at : {2, 10, 18}) {
    for (const uint64_t count : {uint64_t{1} << 31, uint64_t{1} << 40, uint64_t{1} << 61, ~uint64_t{0}}) {
      std::vector<uint8_t> bytes = good;
      std::memcpy(&bytes[at], &count, sizeof(count));
      g_largest_allocation = 0;
      EXPECT_THAT(error_of<Lists>(bytes), HasSubstr("a count of"));
      EXPECT_LT(g_largest_allocation, 4096u);
    }
  }
}

TEST(Codec, AllocatesNoMoreThanTheBytesCouldHold) {
  // A plausible count of large structs before bytes that hold none of them.
  std::vector<uint8_t> bytes = encode(Lists{});
  const uint64_t count = 1 << 20;
  std::memcpy(&bytes[18], &count, sizeof(count));
  bytes.resize(bytes.size() + count, 0xFF);
  g_largest_allocation = 0;
  EXPECT_NE(error_of<Lists>(std::move(bytes)), "decoded");
  EXPECT_LT(g_largest_allocation, 4 * (count + 100));
}

TEST(Codec, AnswersRandomMutationsWithErrorsAlone) {
  const std::vector<uint8_t> good = encode(specimen());
  std::mt19937 random(1);
  int decoded = 0, refused = 0;
  g_largest_allocation = 0;
  for (int i = 0; i < 40'000; ++i) {
    std::vector<uint8_t> bytes = good;
    for (uint32_t changes = 1 + random() % 4; changes > 0; --changes) bytes[random() % bytes.size()] = random();
    if (random() % 4 == 0) bytes.resize(random() % bytes.size());
    (decode<Everything>(bytes) ? decoded : refused)++;
  }
  EXPECT_GT(decoded, 0);
  EXPECT_GT(refused, 0);
  EXPECT_LT(g_largest_allocation, 1u << 20);
}

struct Nothing {
  bool operator==(const Nothing&) const = default;
  template <class Self, class Visitor>
  static void fields(Self&, Visitor&&) {}
};

struct Chosen {
  std::variant<Nothing, Inner, std::vector<int32_t>> what;
  int32_t after = 0;
  bool operator==(const Chosen&) const = default;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("what", s.what);
    visit("after", s.after);
  }
};

TEST(Codec, ReturnsEveryAlternativeOfAVariant) {
  for (const Chosen& chosen : {Chosen{Nothing{}, 1}, Chosen{Inner{"in", {4, 5}}, 2}, Chosen{std::vector{7, 8}, 3}}) {
    const auto decoded = decode<Chosen>(encode(chosen));
    ASSERT_TRUE(decoded) << decoded.error().message;
    EXPECT_EQ(*decoded, chosen);
  }
}

TEST(Codec, WritesAVariantAsItsIndexAndTheAlternative) {
  using Choice = std::variant<Nothing, int32_t>;
  const auto bytes = encode(Choice(int32_t{0x01020304}));
  EXPECT_EQ(bytes, (std::vector<uint8_t>{1, 1, 1, 4, 3, 2, 1}));
}

TEST(Codec, RefusesAnAlternativeThatThereIsNot) {
  auto bytes = encode(Chosen{Nothing{}, 1});
  for (const int index : {3, 255}) {
    bytes[2] = static_cast<uint8_t>(index);
    const auto decoded = decode<Chosen>(bytes);
    ASSERT_FALSE(decoded);
    EXPECT_THAT(decoded.error().message,
                HasSubstr(fmt::format("what: alternative {} where 0 .. 2 was expected", index)));
  }
}

TEST(Codec, RefusesAnAlternativeThatIsCutShort) {
  const auto bytes = encode(Chosen{Inner{"in", {4, 5}}, 2});
  for (size_t size = 0; size < bytes.size(); ++size) EXPECT_FALSE(decode<Chosen>(std::span(bytes).first(size)));
}

}  // namespace
}  // namespace lorikeet::comm
