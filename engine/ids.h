// Typed indices: a raw integer cannot enter where an id is expected, nor one kind of id where another is.
#pragma once

#include <compare>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace lorikeet::engine {

template <class Tag, std::integral Int>
class Id {
 public:
  using value_type = Int;

  constexpr Id() = default;
  constexpr explicit Id(Int value) : value_(value) {}
  constexpr Int value() const { return value_; }
  constexpr auto operator<=>(const Id&) const = default;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor&& visit) {
    visit("value", self.value_);
  }

 private:
  Int value_ = 0;
};

using SequenceId = Id<struct SequenceTag, uint64_t>;  // one per request, never reused
using BlockId = Id<struct BlockTag, int32_t>;         // a KV block of every rank's pool, 0 .. num_blocks - 1
using SlotId = Id<struct SlotTag, int32_t>;           // an adapter slot of every rank; kBaseSlot is the base model
using StepId = Id<struct StepTag, uint64_t>;          // counts the plans of an epoch, from 1
using Epoch = Id<struct EpochTag, uint64_t>;          // one life of the tensor-parallel group

inline constexpr SlotId kBaseSlot{-1};

static_assert(!std::convertible_to<int, BlockId> && !std::convertible_to<BlockId, SlotId>);

}  // namespace lorikeet::engine

template <class Tag, class Int>
struct std::hash<lorikeet::engine::Id<Tag, Int>> {
  size_t operator()(const lorikeet::engine::Id<Tag, Int>& id) const { return std::hash<Int>{}(id.value()); }
};
