#include "engine/ids.h"

#include <gtest/gtest.h>

#include <type_traits>
#include <unordered_set>

#include "engine/engine.h"
#include "engine/prefix_cache.h"
#include "engine/sequence.h"

namespace lorikeet::engine {
namespace {

template <class From, class To>
constexpr bool kEnters = std::is_convertible_v<From, To> || std::is_assignable_v<To&, From>;

template <class Id>
constexpr bool kTakesNoRawNumber = !kEnters<int, Id> && !kEnters<typename Id::value_type, Id> && !kEnters<long, Id> &&
                                   !kEnters<Id, int> && !kEnters<Id, typename Id::value_type>;

static_assert(kTakesNoRawNumber<SequenceId> && kTakesNoRawNumber<BlockId> && kTakesNoRawNumber<SlotId>);
static_assert(kTakesNoRawNumber<StepId> && kTakesNoRawNumber<Epoch>);
static_assert(kTakesNoRawNumber<PrefixId> && kTakesNoRawNumber<GroupId>);

// One kind of id is no other kind, even over the same integer.
static_assert(!kEnters<BlockId, SlotId> && !kEnters<SlotId, BlockId> && !kEnters<GroupId, BlockId>);
static_assert(!kEnters<SequenceId, StepId> && !kEnters<StepId, Epoch> && !kEnters<PrefixId, SequenceId>);

// Calls with the wrong kind of id, or with a number, do not compile.
template <class... Args>
concept CanFinish = requires(Engine& engine, Args... args) {
  engine.finish(args..., FinishReason::abort);
};
static_assert(CanFinish<SequenceId> && !CanFinish<uint64_t> && !CanFinish<int> && !CanFinish<StepId>);
template <class Slot>
concept CanBeReadyIn = requires(Engine& engine, Slot slot) {
  engine.adapter_ready(SequenceId(1), slot);
};
static_assert(CanBeReadyIn<SlotId> && !CanBeReadyIn<int32_t> && !CanBeReadyIn<BlockId>);

TEST(Ids, CompareAndHashLikeTheirNumbers) {
  EXPECT_LT(BlockId(2), BlockId(10));
  EXPECT_EQ(SequenceId(7), SequenceId(7));
  EXPECT_EQ(kBaseSlot.value(), -1);
  const std::unordered_set<SequenceId> ids{SequenceId(1), SequenceId(1), SequenceId(2)};
  EXPECT_EQ(ids.size(), 2u);
}

}  // namespace
}  // namespace lorikeet::engine
