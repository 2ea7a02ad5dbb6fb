#include "actors/wire/wire.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "actors/wire/control_message.h"
#include "comm/codec/codec.h"
#include "engine/step_plan.h"

namespace lorikeet::actors {
namespace {

template <class T>
T there_and_back(const T& value) {
  return comm::decode<T>(comm::encode(value)).value();
}

TEST(Wire, RoundTripsRankLoaded) {
  const auto back = there_and_back(RankLoaded{12, 65536, 1ULL << 40});
  EXPECT_EQ(back.num_blocks, 12);
  EXPECT_EQ(back.block_bytes, 65536u);
  EXPECT_EQ(back.weight_bytes, 1ULL << 40);
}

TEST(Wire, RoundTripsFormGroup) {
  EXPECT_EQ(there_and_back(FormGroup{77}).num_blocks, 77);
}

TEST(Wire, RoundTripsAdapterBegin) {
  const auto back = there_and_back(AdapterBegin{"d1", 3, 1000});
  EXPECT_EQ(back.digest, "d1");
  EXPECT_EQ(back.slot, 3);
  EXPECT_EQ(back.bytes, 1000u);
}

TEST(Wire, RoundTripsDoraValuesWhateverTheFloats) {
  const float infinity = std::numeric_limits<float>::infinity();
  const auto back = there_and_back(DoraValues{{{{1.5F, -0.0F}}, {{}}, {{infinity, std::nanf("")}}}});
  ASSERT_EQ(back.pairs.size(), 3u);
  EXPECT_EQ(back.pairs[0].values[0], 1.5F);
  EXPECT_TRUE(std::signbit(back.pairs[0].values[1]));
  EXPECT_TRUE(back.pairs[1].values.empty());
  EXPECT_EQ(back.pairs[2].values[0], infinity);
  EXPECT_TRUE(std::isnan(back.pairs[2].values[1]));
}

TEST(Wire, RoundTripsAdapterDone) {
  const auto back = there_and_back(AdapterDone{"d", "no room"});
  EXPECT_EQ(back.digest, "d");
  EXPECT_EQ(back.error, "no room");
}

TEST(Wire, RoundTripsControlMessages) {
  const auto back = there_and_back(ControlMessage{ControlKind::group_lost, "rank 1 died", 3, 4711});
  EXPECT_EQ(back.kind, ControlKind::group_lost);
  EXPECT_EQ(back.text, "rank 1 died");
  EXPECT_EQ(back.epoch, 3u);
  EXPECT_EQ(back.port, 4711);
}

TEST(Wire, RoundTripsTheStartOfAChildWithAllOptions) {
  ChildStart start;
  start.options.model = "/models/m";
  start.options.lora_modules = {{"a", "/a"}, {"b", "/b"}};
  start.options.tensor_parallel_size = 4;
  start.options.kv_cache_memory_bytes = 1ULL << 35;
  start.options.test_hooks = "hold_adapter_load=a";
  start.secret = "s";
  start.epoch = 9;
  start.rank = 2;
  start.head_port = 65535;
  start.parent_pid = 12;
  const auto back = there_and_back(start);
  EXPECT_EQ(comm::encode(back), comm::encode(start));
  EXPECT_EQ(back.options.lora_modules, start.options.lora_modules);
  EXPECT_EQ(back.options.kv_cache_memory_bytes, start.options.kv_cache_memory_bytes);
  EXPECT_EQ(back.rank, 2);
}

TEST(Wire, RefusesAForgedKindOfControlMessage) {
  auto bytes = comm::encode(ControlMessage{});
  for (size_t i = 0; i < bytes.size(); ++i) {
    auto forged = bytes;
    forged[i] = 0xFF;
    const auto message = comm::decode<ControlMessage>(forged);
    if (message) {
      EXPECT_LE(message->kind, ControlKind::group_lost);
    }
  }
}

}  // namespace
}  // namespace lorikeet::actors
