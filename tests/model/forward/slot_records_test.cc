#include "model/forward/slot_records.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

namespace lorikeet::model {
namespace {

using ::testing::HasSubstr;

SlotRecordShape shape_of(const std::string& what = "slots of a test") {
  return {what, 3, 4, 2};
}

SlotRecord record_of(char letter) {
  SlotRecord record;
  record.digest = std::string(32, letter);
  record.contents = static_cast<uint64_t>(letter) << 40;
  record.places = {{16, 2.0F}, {0, 0.0F}, {8, 0.5F}, {1, -1.0F}};
  record.spans = {{512, 1024}, {4096, 512}};
  return record;
}

void expect_same(const std::optional<SlotRecord>& found, const SlotRecord& wanted) {
  ASSERT_TRUE(found);
  EXPECT_EQ(found->digest, wanted.digest);
  EXPECT_EQ(found->contents, wanted.contents);
  ASSERT_EQ(found->places.size(), wanted.places.size());
  for (size_t i = 0; i < wanted.places.size(); ++i) {
    EXPECT_EQ(found->places[i].rank, wanted.places[i].rank);
    EXPECT_EQ(found->places[i].scale, wanted.places[i].scale);
  }
  ASSERT_EQ(found->spans.size(), wanted.spans.size());
  for (size_t i = 0; i < wanted.spans.size(); ++i) {
    EXPECT_EQ(found->spans[i].offset, wanted.spans[i].offset);
    EXPECT_EQ(found->spans[i].bytes, wanted.spans[i].bytes);
  }
}

Descriptor copy_of(const Descriptor& descriptor) {
  return Descriptor(fcntl(descriptor.get(), F_DUPFD_CLOEXEC, 0));
}

TEST(SlotRecords, AreReadByASuccessorAsTheyWereWritten) {
  auto written = SlotRecords::make(shape_of()).value();
  SlotRecord one_span = record_of('b');
  one_span.spans.pop_back();
  written.write(0, record_of('a'));
  written.write(2, one_span);
  const auto found = SlotRecords::attach(copy_of(written.descriptor()), shape_of()).value();
  expect_same(found.read(0), record_of('a'));
  EXPECT_FALSE(found.read(1));
  expect_same(found.read(2), one_span);
}

TEST(SlotRecords, AreReplacedAndTakenAwayOneByOne) {
  auto records = SlotRecords::make(shape_of()).value();
  records.write(0, record_of('a'));
  records.write(1, record_of('b'));
  records.write(0, record_of('c'));
  records.clear(1);
  expect_same(records.read(0), record_of('c'));
  EXPECT_FALSE(records.read(1));
}

TEST(SlotRecords, ThatAreNotWholeAreNone) {
  auto records = SlotRecords::make(shape_of()).value();
  records.write(1, record_of('a'));
  const auto memory = kernels::SharedMemory::attach(copy_of(records.descriptor()), records.bytes()).value();
  constexpr size_t kHeader = 1024;
  const size_t record = (records.bytes() - kHeader) / 3;
  for (size_t byte = 0; byte < record; ++byte) {
    memory.data()[kHeader + record + byte] ^= 0x81;
    EXPECT_FALSE(records.read(1)) << byte;
    memory.data()[kHeader + record + byte] ^= 0x81;
  }
  expect_same(records.read(1), record_of('a'));
}

TEST(SlotRecords, OfOtherSlotsAreRefused) {
  const auto records = SlotRecords::make(shape_of()).value();
  const auto other = SlotRecords::attach(copy_of(records.descriptor()), shape_of("slots of another test"));
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().message, "they are of slots of a test, not of slots of another test");
  SlotRecordShape larger = shape_of();
  larger.slots = 4;
  EXPECT_FALSE(SlotRecords::attach(copy_of(records.descriptor()), larger));
  EXPECT_FALSE(SlotRecords::attach(Descriptor(), shape_of()));
  EXPECT_FALSE(SlotRecords::make(shape_of(std::string(1024, 'x'))));
}

}  // namespace
}  // namespace lorikeet::model
