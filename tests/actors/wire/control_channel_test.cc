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
  ASSERT_TRUE(supervisor_->send(ControlMessage{ControlKind::stop, "", 0, 0}));
  EXPECT_EQ(child_->receive_start().value()->secret, "s");
  EXPECT_EQ(child_->receive().value()->kind, ControlKind::stop);
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
  const auto message = child_->receive();
  ASSERT_TRUE(message);
  EXPECT_FALSE(*message);
  EXPECT_FALSE(child_->send(ControlMessage{}));
}

TEST_F(ControlChannelTest, TakesHalfAMessageForTheEnd) {
  const uint8_t half[] = {200, 0, 0, 0, 1, 2, 3};
  ASSERT_EQ(send(supervisor_->descriptor(), half, sizeof(half), 0), static_cast<ssize_t>(sizeof(half)));
  supervisor_.reset();
  EXPECT_FALSE(child_->receive().value());
}

TEST_F(ControlChannelTest, RefusesForgedLengthsAndContents) {
  const uint8_t huge[] = {0xFF, 0xFF, 0xFF, 0x7F};
  ASSERT_EQ(send(supervisor_->descriptor(), huge, sizeof(huge), 0), static_cast<ssize_t>(sizeof(huge)));
  EXPECT_FALSE(child_->receive());
  const uint8_t nonsense[] = {3, 0, 0, 0, 9, 9, 9};
  ASSERT_EQ(send(supervisor_->descriptor(), nonsense, sizeof(nonsense), 0), static_cast<ssize_t>(sizeof(nonsense)));
  EXPECT_FALSE(child_->receive());
}

}  // namespace
}  // namespace lorikeet::actors
