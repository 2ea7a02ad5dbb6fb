// The templates of comm/codec/codec.h. Layout after the version byte, as cereal's portable binary archive has it:
//   byte order   1 byte, 1 = little endian (written as the machine has it, read either way)
//   arithmetic   its bytes; bool and enums as their underlying type, checked when read
//   string       uint64 length, bytes
//   vector       uint64 count, elements
//   optional     bool "is absent", then the value where it is present
//   pair         first, second
//   variant      the alternative's index in one byte, then the alternative
//   struct       its fields() in order
//   plain form   as its type
#pragma once

#include <algorithm>
#include <cereal/archives/portable_binary.hpp>
#include <cereal/cereal.hpp>
#include <concepts>
#include <cstring>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>

#include "comm/codec/codec.h"

namespace lorikeet::comm::codec_detail {

inline constexpr uint8_t kVersion = 1;

struct NoVisitor {
  template <class T>
  void operator()(const char*, T&) const {}
};

template <class T>
concept HasFields = requires(T& value) {
  T::fields(value, NoVisitor{});
};

template <class T>
concept HasPlain = requires(const T& value, const typename T::Plain& plain) {
  { value.plain() } -> std::same_as<typename T::Plain>;
  { T::from_plain(plain) } -> std::same_as<T>;
};

// An enum in a message is dense from 0 and says where it ends, so that a forged value is refused:
//   constexpr Kind last_enumerator(Kind) { return Kind::last_one; }
template <class T>
concept BoundedEnum = std::is_enum_v<T> && requires(T value) {
  { last_enumerator(value) } -> std::same_as<T>;
};

template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};
template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};
template <class T>
struct IsPair : std::false_type {};
template <class A, class B>
struct IsPair<std::pair<A, B>> : std::true_type {};
template <class T>
struct IsVariant : std::false_type {};
template <class... Alternatives>
struct IsVariant<std::variant<Alternatives...>> : std::true_type {};

template <class>
inline constexpr bool kUnsupported = false;

// cereal's PortableBinaryOutputArchive over a byte vector instead of a stream, several times faster.
class ByteOutputArchive : public cereal::OutputArchive<ByteOutputArchive, cereal::AllowEmptyClassElision> {
 public:
  explicit ByteOutputArchive(std::vector<uint8_t>& bytes) : OutputArchive(this), bytes_(bytes) {
    (*this)(static_cast<uint8_t>(cereal::portable_binary_detail::is_little_endian()));
  }

  void append(const void* data, size_t size) {
    if (size == 0) return;
    const size_t before = bytes_.size();
    bytes_.resize(before + size);
    std::memcpy(bytes_.data() + before, data, size);
  }

 private:
  std::vector<uint8_t>& bytes_;
};

// cereal's PortableBinaryInputArchive over bytes that may be forged. Throws cereal::Exception alone.
class BoundedInputArchive : public cereal::InputArchive<BoundedInputArchive, cereal::AllowEmptyClassElision> {
 public:
  explicit BoundedInputArchive(std::span<const uint8_t> bytes) : InputArchive(this), bytes_(bytes) {
    uint8_t little = 0;
    load(&little, 1, 1);
    if (little > 1) throw cereal::Exception(fmt::format("byte order {} where 0 or 1 was expected", little));
    swap_ = little != cereal::portable_binary_detail::is_little_endian();
  }

  size_t left() const { return bytes_.size() - position_; }

  // Reads count elements of the given size in bytes.
  void load(void* data, size_t count, size_t element_size) {
    if (count > left() / element_size) {
      throw cereal::Exception(
          fmt::format("{} elements of {} bytes where {} bytes are left", count, element_size, left()));
    }
    if (count == 0) return;
    std::memcpy(data, bytes_.data() + position_, count * element_size);
    position_ += count * element_size;
    if (swap_ && element_size > 1) swap(static_cast<uint8_t*>(data), count, element_size);
  }

  // A count of elements that take at least element_size bytes each.
  size_t load_count(size_t element_size) {
    uint64_t count = 0;
    load(&count, 1, sizeof(count));
    if (count > left() / element_size) {
      throw cereal::Exception(fmt::format("a count of {} where {} bytes are left", count, left()));
    }
    return static_cast<size_t>(count);
  }

  void enter(const char* field) { field_ = field; }
  const char* field() const { return field_; }

 private:
  static void swap(uint8_t* data, size_t count, size_t element_size) {
    for (size_t i = 0; i < count; ++i) std::reverse(data + i * element_size, data + (i + 1) * element_size);
  }

  std::span<const uint8_t> bytes_;
  size_t position_ = 0;
  bool swap_ = false;
  const char* field_ = nullptr;  // the one that is being read, for the sentence of an error
};

template <class T>
requires std::is_arithmetic_v<T>
void CEREAL_SAVE_FUNCTION_NAME(ByteOutputArchive& archive, const T& value) {
  archive.append(&value, sizeof(value));
}

template <class T>
void CEREAL_SAVE_FUNCTION_NAME(ByteOutputArchive& archive, const cereal::BinaryData<T>& data) {
  archive.append(data.data, data.size);
}

template <class T>
requires std::is_arithmetic_v<T>
void CEREAL_LOAD_FUNCTION_NAME(BoundedInputArchive& archive, T& value) {
  archive.load(&value, 1, sizeof(value));
}

template <class T>
void write(ByteOutputArchive& archive, const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    archive(static_cast<uint8_t>(value));
  } else if constexpr (std::is_arithmetic_v<T>) {
    archive(value);
  } else if constexpr (std::is_enum_v<T>) {
    static_assert(BoundedEnum<T>, "declare `constexpr E last_enumerator(E)` beside the enum");
    archive(static_cast<std::underlying_type_t<T>>(value));
  } else if constexpr (std::is_same_v<T, std::string>) {
    archive(static_cast<uint64_t>(value.size()), cereal::binary_data(value.data(), value.size()));
  } else if constexpr (IsVector<T>::value) {
    using Element = typename T::value_type;
    static_assert(!std::is_same_v<Element, bool>, "vector<bool> has no bytes of its own: use vector<uint8_t>");
    archive(static_cast<uint64_t>(value.size()));
    if constexpr (std::is_arithmetic_v<Element>) {
      archive(cereal::binary_data(value.data(), value.size() * sizeof(Element)));
    } else {
      for (const Element& element : value) write(archive, element);
    }
  } else if constexpr (IsOptional<T>::value) {
    write(archive, !value.has_value());
    if (value) write(archive, *value);
  } else if constexpr (IsPair<T>::value) {
    write(archive, value.first);
    write(archive, value.second);
  } else if constexpr (IsVariant<T>::value) {
    static_assert(std::variant_size_v<T> <= 256, "the index is one byte");
    archive(static_cast<uint8_t>(value.index()));
    std::visit([&archive](const auto& alternative) { write(archive, alternative); }, value);
  } else if constexpr (HasFields<T>) {
    T::fields(value, [&archive](const char*, const auto& field) { write(archive, field); });
  } else if constexpr (HasPlain<T>) {
    write(archive, value.plain());
  } else {
    static_assert(kUnsupported<T>, "no encoding for this type");
  }
}

template <class T>
void read(BoundedInputArchive& archive, T& value);

template <size_t... kIndices, class T>
void read_alternative(BoundedInputArchive& archive, T& value, size_t index, std::index_sequence<kIndices...>) {
  const auto read_if = [&]<size_t kIndex>(std::integral_constant<size_t, kIndex>) {
    if (index == kIndex) read(archive, value.template emplace<kIndex>());
  };
  (read_if(std::integral_constant<size_t, kIndices>()), ...);
}

template <class T>
void read(BoundedInputArchive& archive, T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    uint8_t byte = 0;
    archive(byte);
    if (byte > 1) throw cereal::Exception(fmt::format("{} where a boolean was expected", byte));
    value = byte == 1;
  } else if constexpr (std::is_arithmetic_v<T>) {
    archive(value);
  } else if constexpr (std::is_enum_v<T>) {
    static_assert(BoundedEnum<T>, "declare `constexpr E last_enumerator(E)` beside the enum");
    using Raw = std::underlying_type_t<T>;
    Raw raw{};
    archive(raw);
    constexpr Raw last = static_cast<Raw>(last_enumerator(T{}));
    if (std::cmp_less(raw, 0) || std::cmp_greater(raw, last)) {
      throw cereal::Exception(fmt::format("{} where 0 .. {} was expected", static_cast<int64_t>(raw), last));
    }
    value = static_cast<T>(raw);
  } else if constexpr (std::is_same_v<T, std::string>) {
    const size_t size = archive.load_count(1);
    value.resize(size);
    archive.load(value.data(), size, 1);
  } else if constexpr (IsVector<T>::value) {
    using Element = typename T::value_type;
    static_assert(!std::is_same_v<Element, bool>, "vector<bool> has no bytes of its own: use vector<uint8_t>");
    if constexpr (std::is_arithmetic_v<Element>) {
      const size_t count = archive.load_count(sizeof(Element));
      value.resize(count);
      archive.load(value.data(), count, sizeof(Element));
    } else {
      // Grown as elements prove to be there: a count alone never allocates more than the bytes could hold.
      const size_t count = archive.load_count(1);
      value.clear();
      for (size_t i = 0; i < count; ++i) read(archive, value.emplace_back());
    }
  } else if constexpr (IsOptional<T>::value) {
    bool absent = false;
    read(archive, absent);
    if (absent) {
      value.reset();
    } else {
      read(archive, value.emplace());
    }
  } else if constexpr (IsPair<T>::value) {
    read(archive, value.first);
    read(archive, value.second);
  } else if constexpr (IsVariant<T>::value) {
    constexpr size_t kSize = std::variant_size_v<T>;
    uint8_t index = 0;
    archive(index);
    if (index >= kSize) {
      throw cereal::Exception(fmt::format("alternative {} where 0 .. {} was expected", index, kSize - 1));
    }
    read_alternative(archive, value, index, std::make_index_sequence<kSize>());
  } else if constexpr (HasFields<T>) {
    T::fields(value, [&archive](const char* name, auto& field) {
      archive.enter(name);
      read(archive, field);
    });
  } else if constexpr (HasPlain<T>) {
    typename T::Plain plain{};
    read(archive, plain);
    value = T::from_plain(plain);
  } else {
    static_assert(kUnsupported<T>, "no encoding for this type");
  }
}

}  // namespace lorikeet::comm::codec_detail

CEREAL_REGISTER_ARCHIVE(lorikeet::comm::codec_detail::ByteOutputArchive)
CEREAL_REGISTER_ARCHIVE(lorikeet::comm::codec_detail::BoundedInputArchive)

namespace lorikeet::comm {

template <class T>
std::vector<uint8_t> encode(const T& value) {
  std::vector<uint8_t> bytes;
  bytes.push_back(codec_detail::kVersion);
  codec_detail::ByteOutputArchive archive(bytes);
  codec_detail::write(archive, value);
  return bytes;
}

template <class T>
Result<T> decode(std::span<const uint8_t> bytes) {
  if (bytes.empty()) return fail("no bytes where an encoded message was expected");
  if (bytes[0] != codec_detail::kVersion) {
    return fail("encoding version {} where {} was expected", bytes[0], codec_detail::kVersion);
  }
  const char* field = nullptr;
  try {
    codec_detail::BoundedInputArchive archive(bytes.subspan(1));
    T value{};
    try {
      codec_detail::read(archive, value);
    } catch (const cereal::Exception&) {
      field = archive.field();
      throw;
    }
    if (archive.left() != 0) return fail("{} bytes too many after the message", archive.left());
    return value;
  } catch (const cereal::Exception& error) {
    if (field == nullptr) return fail("malformed message: {}", error.what());
    return fail("malformed message: {}: {}", field, error.what());
  }
}

}  // namespace lorikeet::comm
