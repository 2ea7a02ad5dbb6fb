#include "actors/wire/envelope.h"

#include <gtest/gtest.h>

#include <numeric>

namespace lorikeet::actors {
namespace {

std::vector<uint8_t> bytes_of_size(size_t size) {
  std::vector<uint8_t> bytes(size);
  std::iota(bytes.begin(), bytes.end(), uint8_t{0});
  return bytes;
}

Envelope plan_envelope() {
  return {EnvelopeStream::steps, 1, 7, 42, true, {}};
}

TEST(Envelope, CarriesASmallMessageInOnePart) {
  const auto parts = split(plan_envelope(), bytes_of_size(100));
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_TRUE(parts[0].last);
  EXPECT_EQ(parts[0].rank, 1);
  EXPECT_EQ(parts[0].epoch, 7u);
  EXPECT_EQ(parts[0].step, 42u);
  EXPECT_EQ(parts[0].bytes, bytes_of_size(100));
}

TEST(Envelope, CutsALargeMessageAndPutsItTogetherAgain) {
  for (const size_t size :
       {size_t{0}, kEnvelopeBytes, kEnvelopeBytes + 1, 3 * kEnvelopeBytes, 5 * kEnvelopeBytes + 7}) {
    SCOPED_TRACE(size);
    const auto parts = split(plan_envelope(), bytes_of_size(size));
    EnvelopeAssembler assembler;
    for (size_t i = 0; i < parts.size(); ++i) {
      EXPECT_LE(parts[i].bytes.size(), kEnvelopeBytes);
      const auto whole = assembler.add(parts[i]);
      ASSERT_TRUE(whole);
      ASSERT_EQ(whole->has_value(), i + 1 == parts.size());
      if (*whole) {
        EXPECT_EQ(**whole, bytes_of_size(size));
      }
    }
  }
}

TEST(Envelope, KeepsInterleavedStreamsApart) {
  Envelope factors = plan_envelope();
  factors.stream = EnvelopeStream::adapters;
  factors.step = 0;
  const auto plans = split(plan_envelope(), bytes_of_size(kEnvelopeBytes + 1));
  const auto adapters = split(factors, bytes_of_size(kEnvelopeBytes + 2));
  EnvelopeAssembler assembler;
  EXPECT_FALSE(assembler.add(plans[0]).value());
  EXPECT_FALSE(assembler.add(adapters[0]).value());
  EXPECT_EQ(assembler.add(plans[1]).value()->size(), kEnvelopeBytes + 1);
  EXPECT_EQ(assembler.add(adapters[1]).value()->size(), kEnvelopeBytes + 2);
}

TEST(Envelope, RefusesAPartThatIsTooLargeAndForgetsWhatCameBefore) {
  EnvelopeAssembler assembler;
  Envelope part = plan_envelope();
  part.last = false;
  part.bytes = bytes_of_size(10);
  EXPECT_TRUE(assembler.add(part));
  part.bytes = bytes_of_size(kEnvelopeBytes + 1);
  EXPECT_FALSE(assembler.add(part));
  part.bytes = bytes_of_size(3);
  part.last = true;
  EXPECT_EQ(assembler.add(part).value(), bytes_of_size(3));
}

TEST(Envelope, RefusesPartsOfDifferentStepsAndForgetsWhatCameBefore) {
  EnvelopeAssembler assembler;
  const auto parts = split(plan_envelope(), bytes_of_size(kEnvelopeBytes + 1));
  ASSERT_TRUE(assembler.add(parts[0]));
  Envelope other = parts[1];
  other.step = 43;
  const auto refused = assembler.add(other);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "a part of step 43 in a message of step 42");
  EXPECT_EQ(assembler.add(other).value()->size(), 1u);
}

TEST(Envelope, BoundsWhatIsUnfinishedOnAllStreamsTogether) {
  EnvelopeAssembler assembler(1000);
  Envelope plan = plan_envelope(), adapter = plan_envelope();
  adapter.stream = EnvelopeStream::adapters;
  plan.last = adapter.last = false;
  plan.bytes = adapter.bytes = bytes_of_size(400);
  EXPECT_TRUE(assembler.add(plan));
  EXPECT_TRUE(assembler.add(adapter));
  EXPECT_FALSE(assembler.add(adapter));
  EXPECT_TRUE(assembler.add(adapter)) << "what was collected on the stream has made room";
  plan.last = true;
  plan.bytes = bytes_of_size(200);
  EXPECT_EQ(assembler.add(plan).value()->size(), 600u);
  EXPECT_TRUE(assembler.add(adapter)) << "and so has a message that is whole";
}

TEST(Envelope, RefusesAnUnknownStream) {
  Envelope part = plan_envelope();
  part.stream = static_cast<EnvelopeStream>(200);
  EXPECT_FALSE(EnvelopeAssembler().add(part));
}

}  // namespace
}  // namespace lorikeet::actors
