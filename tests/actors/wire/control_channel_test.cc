#include "actors/wire/control_channel.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <string>
#include <thread>

namespace lorikeet::actors {
namespace {

class ControlChannelTest : public ::testing::Test {
 protected:
  ControlChannelTest() {
    const auto ends = ControlChannel::make_pair().value();
    supervisor_ = std::make_unique<ControlChannel>(ends.first);
    child_ = std::make_unique<ControlChannel>(ends.second);
  }

  std::unique_ptr<ControlChannel> supervisor_, child_;
};

TEST_F(ControlChannelTest, CarriesMessagesInOrder) {
  ChildStart start;
  start.rank = 7;
  ASSERT_TRUE(supervisor_->send(start));
  ASSERT_TRUE(supervisor_->send(control::Stop{}));
  EXPECT_EQ(child_->receive_start().value()->rank, 7);
  EXPECT_TRUE(std::holds_alternative<control::Stop>(child_->receive_order().value().value()));
  ASSERT_TRUE(child_->send(control::Progress{"loading"}));
  EXPECT_EQ(std::get<control::Progress>(supervisor_->receive_report().value().value()).line, "loading");
}

TEST_F(ControlChannelTest, CarriesAStartThatIsLargerThanASocketBuffer) {
  ChildStart start;
  for (int i = 0; i < 20'000; ++i) start.options.lora_modules.emplace_back("adapter" + std::to_string(i), "/a/b/c/d");
  std::thread sender([&] { EXPECT_TRUE(supervisor_->send(start)); });
  const auto back = child_->receive_start().value();
  sender.join();
  EXPECT_EQ(back->options.lora_modules, start.options.lora_modules);
}

TEST_F(ControlChannelTest, CarriesADescriptorWithItsOwnMessage) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  Descriptor reader(ends[0]), writer(ends[1]);
  ASSERT_TRUE(supervisor_->send(control::Stop{}));
  ASSERT_TRUE(supervisor_->send(control::RankConnection{2, 1}, writer.get()));
  ASSERT_TRUE(supervisor_->send(control::Stop{}));
  writer.reset();
  child_->receive_order().value();
  EXPECT_FALSE(child_->take_descriptor());
  EXPECT_EQ(std::get<control::RankConnection>(child_->receive_order().value().value()).rank, 1);
  Descriptor received = child_->take_descriptor();
  ASSERT_TRUE(received);
  EXPECT_EQ(fcntl(received.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(write(received.get(), "x", 1), 1);
  child_->receive_order().value();
  EXPECT_FALSE(child_->take_descriptor());
  received.reset();
  std::array<char, 2> bytes{};
  EXPECT_EQ(read(reader.get(), bytes.data(), bytes.size()), 1);
  EXPECT_EQ(read(reader.get(), bytes.data(), bytes.size()), 0) << "somebody still holds the other end";
}

TEST_F(ControlChannelTest, ClosesADescriptorThatNobodyTakes) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  Descriptor reader(ends[0]), writer(ends[1]);
  ASSERT_TRUE(supervisor_->send(control::RankConnection{2, 1}, writer.get()));
  ASSERT_TRUE(supervisor_->send(control::Stop{}));
  writer.reset();
  child_->receive_order().value();
  child_->receive_order().value();
  char byte = 0;
  EXPECT_EQ(read(reader.get(), &byte, 1), 0);
}

TEST_F(ControlChannelTest, TellsThatThePeerIsGone) {
  supervisor_.reset();
  const auto message = child_->receive_order();
  ASSERT_TRUE(message);
  EXPECT_FALSE(*message);
  EXPECT_FALSE(child_->send(control::Progress{"line"}));
}

TEST_F(ControlChannelTest, TakesHalfAMessageForTheEnd) {
  const uint8_t half[] = {200, 0, 0, 0, 1, 2, 3};
  ASSERT_EQ(send(supervisor_->descriptor(), half, sizeof(half), 0), static_cast<ssize_t>(sizeof(half)));
  supervisor_.reset();
  EXPECT_FALSE(child_->receive_order().value());
}

TEST_F(ControlChannelTest, RefusesForgedLengthsAndContents) {
  const uint8_t huge[] = {0xFF, 0xFF, 0xFF, 0x7F};
  ASSERT_EQ(send(supervisor_->descriptor(), huge, sizeof(huge), 0), static_cast<ssize_t>(sizeof(huge)));
  EXPECT_FALSE(child_->receive_order());
  const uint8_t unknown[] = {3, 0, 0, 0, 1, 1, 7};  // the eighth order, where there are seven
  ASSERT_EQ(send(supervisor_->descriptor(), unknown, sizeof(unknown), 0), static_cast<ssize_t>(sizeof(unknown)));
  const auto order = child_->receive_order();
  ASSERT_FALSE(order);
  EXPECT_EQ(order.error().message, "control channel: malformed message: alternative 7 where 0 .. 6 was expected");
  const uint8_t nonsense[] = {3, 0, 0, 0, 9, 9, 9};
  ASSERT_EQ(send(supervisor_->descriptor(), nonsense, sizeof(nonsense), 0), static_cast<ssize_t>(sizeof(nonsense)));
  EXPECT_FALSE(child_->receive_order());
}

}  // namespace
}  // namespace lorikeet::actors
