#include "actors/wire/wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <variant>

#include "actors/wire/checkpoint_message.h"
#include "actors/wire/control_message.h"
#include "actors/wire/host_message.h"
#include "comm/codec/codec.h"

namespace lorikeet::actors {
namespace {

using ::testing::HasSubstr;

template <class T>
T there_and_back(const T& value) {
  return comm::decode<T>(comm::encode(value)).value();
}

// The alternative of a variant, there and back.
template <class Variant, class What>
What carried(const What& what) {
  return std::get<What>(there_and_back(Variant(what)));
}

// The same in an adapter's order or report; the transfer's number comes back, too.
template <class Message, class What>
What of_transfer(const What& what) {
  const Message back = there_and_back(Message{~uint64_t{0}, what});
  EXPECT_EQ(back.transfer, ~uint64_t{0});
  return std::get<What>(back.what);
}

// Forges the index of the variant, which stands `at` this byte: none that does not exist is taken.
template <class Message>
void refuses_forged_alternatives(const Message& message, size_t at, uint8_t count) {
  auto bytes = comm::encode(message);
  for (int index = count; index < 256; ++index) {
    bytes[at] = static_cast<uint8_t>(index);
    const auto forged = comm::decode<Message>(bytes);
    ASSERT_FALSE(forged);
    EXPECT_THAT(forged.error().message, HasSubstr("alternative"));
  }
}
constexpr size_t kFirst = 2;  // behind version and byte order
constexpr size_t kBehindTransfer = kFirst + sizeof(uint64_t);

TEST(Wire, RoundTripsOrdersToTheGroup) {
  EXPECT_EQ(carried<GroupOrder>(FormGroup{77}).num_blocks, 77);
  carried<GroupOrder>(Fence{});
  const auto grammar = carried<GroupOrder>(GrammarText{"d1", 4, "a+"});
  EXPECT_EQ(grammar.digest, "d1");
  EXPECT_EQ(grammar.kind, 4);
  EXPECT_EQ(grammar.text, "a+");
  EXPECT_EQ(carried<GroupOrder>(GrammarDrop{"d2"}).digest, "d2");
  refuses_forged_alternatives(GroupOrder(Fence{}), kFirst, 4);
}

TEST(Wire, RoundTripsReportsOfTheGroup) {
  const auto loaded = carried<GroupReport>(RankLoaded{12, 65536, 1ULL << 40, 77, 9});
  EXPECT_EQ(loaded.num_blocks, 12);
  EXPECT_EQ(loaded.block_bytes, 65536u);
  EXPECT_EQ(loaded.weight_bytes, 1ULL << 40);
  EXPECT_EQ(loaded.weight_bytes_read, 77u);
  EXPECT_EQ(loaded.kv_epoch, 9u);
  carried<GroupReport>(RankReady{});
  const auto compiled = carried<GroupReport>(GrammarCompiled{"d1", 1ULL << 33, "why"});
  EXPECT_EQ(compiled.digest, "d1");
  EXPECT_EQ(compiled.bytes, 1ULL << 33);
  EXPECT_EQ(compiled.error, "why");
  refuses_forged_alternatives(GroupReport(RankReady{}), kFirst, 3);
}

TEST(Wire, RoundTripsOrdersAboutAdapters) {
  const auto begin = of_transfer<AdapterOrder>(AdapterBegin{"d1", 3, 1000});
  EXPECT_EQ(begin.digest, "d1");
  EXPECT_EQ(begin.slot, 3);
  EXPECT_EQ(begin.bytes, 1000u);
  EXPECT_EQ(of_transfer<AdapterOrder>(AdapterChunk{{1, 2, 0, 255}}).bytes, (std::vector<uint8_t>{1, 2, 0, 255}));
  EXPECT_EQ(of_transfer<AdapterOrder>(DoraValues{{{{1.5F}}}}).pairs[0].values, std::vector<float>{1.5F});
  EXPECT_EQ(of_transfer<AdapterOrder>(AdapterClear{5}).slot, 5);
  const auto region = of_transfer<AdapterOrder>(AdapterRegion{"d1", 3, 1ULL << 33, 4096, 1ULL << 32});
  EXPECT_EQ(region.digest, "d1");
  EXPECT_EQ(region.slot, 3);
  EXPECT_EQ(region.region_bytes, 1ULL << 33);
  EXPECT_EQ(region.offset, 4096u);
  EXPECT_EQ(region.bytes, 1ULL << 32);
  const auto confirm = of_transfer<AdapterOrder>(AdapterConfirm{"d1", 3});
  EXPECT_EQ(confirm.digest, "d1");
  EXPECT_EQ(confirm.slot, 3);
  refuses_forged_alternatives(AdapterOrder{1, AdapterClear{0}}, kBehindTransfer, 6);
}

TEST(Wire, RoundTripsReportsAboutAdapters) {
  of_transfer<AdapterReport>(ChunkTaken{});
  EXPECT_EQ(of_transfer<AdapterReport>(DoraValues{{{{2.5F}}}}).pairs[0].values, std::vector<float>{2.5F});
  const auto done = of_transfer<AdapterReport>(AdapterDone{"d", "no room"});
  EXPECT_EQ(done.digest, "d");
  EXPECT_EQ(done.error, "no room");
  EXPECT_EQ(of_transfer<AdapterReport>(ChunksWanted{"it is lost"}).why, "it is lost");
  of_transfer<AdapterReport>(SliceWanted{});
  refuses_forged_alternatives(AdapterReport{1, ChunkTaken{}}, kBehindTransfer, 5);
}

TEST(Wire, AChunkOfAnAdapterTravelsInOneEnvelope) {
  const AdapterOrder order{~uint64_t{0}, AdapterChunk{std::vector<uint8_t>(kAdapterChunkBytes)}};
  EXPECT_EQ(split({}, comm::encode(order)).size(), 1u);
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

TEST(Wire, RoundTripsOrdersToAChild) {
  carried<ChildOrder>(control::Stop{});
  const auto epoch = carried<ChildOrder>(control::NewEpoch{3, "rank 1 died", false, true});
  EXPECT_EQ(epoch.epoch, 3u);
  EXPECT_FALSE(epoch.by_rank);
  EXPECT_TRUE(epoch.doubts_kv);
  EXPECT_EQ(epoch.why, "rank 1 died");
  const auto connection = carried<ChildOrder>(control::RankConnection{4, 1});
  EXPECT_EQ(connection.epoch, 4u);
  EXPECT_EQ(connection.rank, 1);
  carried<ChildOrder>(control::Ping{});
  EXPECT_EQ(carried<ChildOrder>(control::LeaveGroup{5}).epoch, 5u);
  const auto take = carried<ChildOrder>(control::TakeRegion{{"weights", RegionKind::device, 1ULL << 33}});
  EXPECT_EQ(take.region.name, "weights");
  EXPECT_EQ(take.region.kind, RegionKind::device);
  EXPECT_EQ(take.region.bytes, 1ULL << 33);
  EXPECT_EQ(carried<ChildOrder>(control::RankDescriptors{7}).rank, 7);
  refuses_forged_alternatives(ChildOrder(control::Stop{}), kFirst, 7);
}

TEST(Wire, RoundTripsReportsOfAChild) {
  carried<ChildReport>(control::AwaitsRanks{});
  EXPECT_EQ(carried<ChildReport>(control::Progress{"layer 1 of 4"}).line, "layer 1 of 4");
  EXPECT_EQ(carried<ChildReport>(control::Failed{"no such file"}).why, "no such file");
  const auto ready = carried<ChildReport>(control::Ready{2, "tcp://here"});
  EXPECT_EQ(ready.epoch, 2u);
  EXPECT_EQ(ready.address, "tcp://here");
  const auto loading = carried<ChildReport>(control::Loading{1, 4});
  EXPECT_EQ(loading.done, 1);
  EXPECT_EQ(loading.total, 4);
  carried<ChildReport>(control::Alive{});
  EXPECT_EQ(carried<ChildReport>(control::HasLeft{6}).epoch, 6u);
  const auto lost = carried<ChildReport>(control::GroupLost{3, "rank 1 died", true, {1}});
  EXPECT_TRUE(lost.by_rank);
  EXPECT_EQ(lost.ranks, std::vector<int32_t>{1});
  EXPECT_EQ(lost.epoch, 3u);
  EXPECT_EQ(lost.why, "rank 1 died");
  EXPECT_EQ(carried<ChildReport>(control::HoldRegion{{"weights", RegionKind::sealed, 5}}).region.bytes, 5u);
  EXPECT_EQ(carried<ChildReport>(control::DropRegions{"kv"}).name, "kv");
  refuses_forged_alternatives(ChildReport(control::AwaitsRanks{}), kFirst, 10);
}

TEST(Wire, RoundTripsFirstWordsOfAHost) {
  const host::Join join{"1.0",      "gpu2",
                        "instance", {"cuda", "H200", {0, 3}, {1ULL << 37, 5}, {DeviceLink::host, DeviceLink::nvlink}},
                        true,       "10.0.0.2"};
  const auto back = carried<JoinRequest>(join);
  EXPECT_EQ(comm::encode(back), comm::encode(join));
  EXPECT_EQ(back.devices.numbers, join.devices.numbers);
  EXPECT_EQ(back.devices.memory_bytes, join.devices.memory_bytes);
  EXPECT_EQ(back.devices.links, join.devices.links);
  EXPECT_TRUE(back.spare);
  const auto rank = carried<JoinRequest>(host::ConnectRank{"link", 1, 2, 3});
  EXPECT_EQ(rank.link, "link");
  EXPECT_EQ(rank.child, 1u);
  EXPECT_EQ(rank.epoch, 2u);
  EXPECT_EQ(rank.rank, 3);
  EXPECT_EQ(carried<JoinRequest>(host::ReadCheckpoint{"link"}).link, "link");
  refuses_forged_alternatives(JoinRequest(rank), kFirst, 3);
}

TEST(Wire, RoundTripsOrdersToAHost) {
  const auto admitted = carried<HostOrder>(host::Admitted{"no", "link", 4, 250});
  EXPECT_EQ(admitted.refused, "no");
  EXPECT_EQ(admitted.epoch, 4u);
  EXPECT_EQ(admitted.heartbeat_ms, 250);
  ChildStart start;
  start.rank = 2;
  start.place = {3, 6, 4, "10.0.0.2", "eth1"};
  const auto started = carried<HostOrder>(host::StartRank{7, start});
  EXPECT_EQ(started.child, 7u);
  EXPECT_EQ(started.start.place.device, 3);
  EXPECT_EQ(started.start.place.host, 6);
  EXPECT_EQ(started.start.place.ranks_on_host, 4);
  EXPECT_EQ(started.start.place.address, "10.0.0.2");
  EXPECT_EQ(started.start.place.interface_name, "eth1");
  const auto told = carried<HostOrder>(host::TellRank{8, control::LeaveGroup{5}});
  EXPECT_EQ(std::get<control::LeaveGroup>(told.order).epoch, 5u);
  EXPECT_EQ(carried<HostOrder>(host::KillRank{9}).child, 9u);
  carried<HostOrder>(host::Beat{});
  EXPECT_EQ(carried<HostOrder>(host::DropRegions{3}).rank, 3);
  refuses_forged_alternatives(HostOrder(host::Beat{}), kFirst, 6);
}

TEST(Wire, RoundTripsReportsOfAHost) {
  const auto said = carried<HostReport>(host::RankSaid{1, control::HasLeft{6}});
  EXPECT_EQ(std::get<control::HasLeft>(said.report).epoch, 6u);
  const auto exited = carried<HostReport>(host::RankExited{2, "was killed", true, 9});
  EXPECT_EQ(exited.how, "was killed");
  EXPECT_TRUE(exited.on_purpose);
  EXPECT_EQ(exited.signal, 9);
  const auto state = carried<HostReport>(host::RankState{3, true, "process 7", true});
  EXPECT_TRUE(state.is_stopped);
  EXPECT_EQ(state.description, "process 7");
  EXPECT_TRUE(state.fetches);
  carried<HostReport>(host::Beat{});
  refuses_forged_alternatives(HostReport(host::Beat{}), kFirst, 4);
}

TEST(Wire, RoundTripsACheckpointThatIsRead) {
  const auto wanted = carried<CheckpointRequest>(checkpoint::ReadPiece{3, {8, 16, 64, 5}, "digest"});
  EXPECT_EQ(wanted.file, 3u);
  EXPECT_EQ(wanted.runs, (model::ByteRuns{8, 16, 64, 5}));
  EXPECT_EQ(wanted.has, "digest");
  carried<CheckpointRequest>(checkpoint::ListFiles{});
  refuses_forged_alternatives(CheckpointRequest(checkpoint::ListFiles{}), kFirst, 2);
  const auto files = carried<CheckpointAnswer>(checkpoint::Files{"no", {{"config.json", 7, 9}}});
  EXPECT_EQ(files.error, "no");
  EXPECT_EQ(files.files, (std::vector<checkpoint::File>{{"config.json", 7, 9}}));
  const auto piece = carried<CheckpointAnswer>(checkpoint::Piece{"no", "digest", true, {1, 2, 3}});
  EXPECT_EQ(piece.error, "no");
  EXPECT_EQ(piece.digest, "digest");
  EXPECT_TRUE(piece.same);
  EXPECT_EQ(piece.bytes, (std::vector<uint8_t>{1, 2, 3}));
  refuses_forged_alternatives(CheckpointAnswer(piece), kFirst, 2);
}

TEST(Wire, RoundTripsTheStartOfAChildWithAllOptions) {
  ChildStart start;
  start.options.model = "/models/m";
  start.options.lora_modules = {{"a", "/a"}, {"b", "/b"}};
  start.options.tensor_parallel_size = 4;
  start.options.kv_cache_memory_bytes = 1ULL << 35;
  start.options.test_hooks = "hold_adapter_load=a";
  start.epoch = 9;
  start.rank = 2;
  start.parent_pid = 12;
  const auto back = there_and_back(start);
  EXPECT_EQ(comm::encode(back), comm::encode(start));
  EXPECT_EQ(back.options.lora_modules, start.options.lora_modules);
  EXPECT_EQ(back.options.kv_cache_memory_bytes, start.options.kv_cache_memory_bytes);
  EXPECT_EQ(back.rank, 2);
}

}  // namespace
}  // namespace lorikeet::actors
