#include "actors/wire/control_channel.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

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
  start.secret = "s";
  ASSERT_TRUE(supervisor_->send(start));
  ASSERT_TRUE(supervisor_->send(control::Stop{}));
  EXPECT_EQ(child_->receive_start().value()->secret, "s");
  EXPECT_TRUE(std::holds_alternative<control::Stop>(child_->receive_order().value().value()));
  ASSERT_TRUE(child_->send(control::Listening{4711}));
  EXPECT_EQ(std::get<control::Listening>(supervisor_->receive_report().value().value()).port, 4711);
}

TEST_F(ControlChannelTest, CarriesAStartThatIsLargerThanASocketBuffer) {
  ChildStart start;
  for (int i = 0; i < 20'000; ++i) start.options.lora_modules.emplace_back("adapter" + std::to_string(i), "/a/b/c/d");
  std::thread sender([&] { EXPECT_TRUE(supervisor_->send(start)); });
  const auto back = child_->receive_start().value();
  sender.join();
  EXPECT_EQ(back->options.lora_modules, start.options.lora_modules);
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
  const uint8_t unknown[] = {3, 0, 0, 0, 1, 1, 2};  // the third order, where there are two
  ASSERT_EQ(send(supervisor_->descriptor(), unknown, sizeof(unknown), 0), static_cast<ssize_t>(sizeof(unknown)));
  const auto order = child_->receive_order();
  ASSERT_FALSE(order);
  EXPECT_EQ(order.error().message, "control channel: malformed message: alternative 2 where 0 .. 1 was expected");
  const uint8_t nonsense[] = {3, 0, 0, 0, 9, 9, 9};
  ASSERT_EQ(send(supervisor_->descriptor(), nonsense, sizeof(nonsense), 0), static_cast<ssize_t>(sizeof(nonsense)));
  EXPECT_FALSE(child_->receive_order());
}

}  // namespace
}  // namespace lorikeet::actors
