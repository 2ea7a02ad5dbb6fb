#include "kernels/base/device.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "kernels/base/polled_event.h"
#include "tests/kernels/base/cuda_test.h"
#include "tests/kernels/base/held_stream.h"

namespace lorikeet::kernels {
namespace {

using PolledEventCuda = CudaTest;
using GraphCuda = CudaTest;

TEST_F(PolledEventCuda, IsWaitedForUntilWhatWasQueuedBeforeItIsThere) {
  constexpr uint64_t kBytes = 64 << 20;
  const Result<PinnedBuffer> host = PinnedBuffer::allocate(kBytes, "a test");
  ASSERT_TRUE(host) << host.error().message;
  const DeviceBuffer device = zeroed(kBytes);
  for (const uint8_t value : {3, 7}) {
    const Result<PolledEvent> event = PolledEvent::make();
    ASSERT_TRUE(event) << event.error().message;
    EXPECT_TRUE(event->wait());  // nothing was recorded
    fill_bytes(device.data(), value, kBytes, stream_);
    copy_to_host(host->data(), device.data(), kBytes, stream_);
    event->record(stream_);
    ASSERT_TRUE(event->wait());
    EXPECT_TRUE(event->ready());
    EXPECT_EQ(host->as<uint8_t>()[kBytes - 1], value);
  }
}

TEST_F(PolledEventCuda, IsGivenUpWhereTheDeviceDoesNotComeSoFarInTime) {
  const Result<PolledEvent> event = PolledEvent::make();
  ASSERT_TRUE(event) << event.error().message;
  HeldStream held(stream_);
  event->record(stream_);
  const Result<void> ended = event->wait(std::chrono::milliseconds(5));
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().message, "the GPU has not ended what it was given within 5 ms");
  EXPECT_FALSE(event->ready());
  held.release();
  EXPECT_TRUE(event->wait());
}

TEST_F(GraphCuda, LeavesTheStreamOfUseWhereItsWorkThrows) {
  const DeviceBuffer bytes = poisoned(16);
  const auto fill = [&](uint8_t value) { fill_bytes(bytes.data(), value, bytes.bytes(), stream_); };
  stream_.synchronize();
  EXPECT_THROW(static_cast<void>(Graph::capture(stream_,
                                                [&] {
                                                  fill(1);
                                                  throw std::runtime_error("a peer is lost");
                                                })),
               std::runtime_error);
  EXPECT_EQ(to_host<uint8_t>(bytes), std::vector<uint8_t>(16, 0xff));  // nothing of it ran
  const Result<Graph> graph = Graph::capture(stream_, [&] { fill(2); });
  ASSERT_TRUE(graph) << graph.error().message;
  graph->launch(stream_);
  EXPECT_EQ(to_host<uint8_t>(bytes), std::vector<uint8_t>(16, 2));
}

}  // namespace
}  // namespace lorikeet::kernels
