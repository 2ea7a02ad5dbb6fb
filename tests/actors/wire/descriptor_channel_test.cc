#include "actors/wire/descriptor_channel.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <string>

namespace lorikeet::actors {
namespace {

using ::testing::HasSubstr;

size_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(all), end(all)));
}

// A file that holds the text.
Descriptor file_of(const std::string& text) {
  Descriptor file(memfd_create("test", MFD_CLOEXEC));
  EXPECT_EQ(write(file.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  return file;
}

std::string text_in(const Descriptor& file) {
  std::string text(100, 0);
  const ssize_t got = pread(file.get(), text.data(), text.size(), 0);
  text.resize(got < 0 ? 0 : static_cast<size_t>(got));
  return text;
}

class DescriptorChannelTest : public ::testing::Test {
 protected:
  DescriptorChannelTest() {
    auto ends = make_descriptor_channel().value();
    senders_.put(3, std::move(ends.first));
    receiver_ = std::make_unique<DescriptorReceiver>(std::move(ends.second));
  }

  DescriptorSenders senders_;
  std::unique_ptr<DescriptorReceiver> receiver_;
};

TEST_F(DescriptorChannelTest, HandsOverADescriptorUnderItsNumber) {
  ASSERT_TRUE(senders_.send(3, 7, file_of("seven")));
  const auto received = receiver_->receive(7);
  ASSERT_TRUE(received) << received.error().message;
  EXPECT_EQ(text_in(*received), "seven");
  EXPECT_EQ(fcntl(received->get(), F_GETFD), FD_CLOEXEC);
}

TEST_F(DescriptorChannelTest, ClosesWhatNobodyHasAskedFor) {
  ASSERT_TRUE(senders_.send(3, 1, file_of("one")));
  ASSERT_TRUE(senders_.send(3, 2, file_of("two")));
  const size_t before = open_descriptors();
  ASSERT_TRUE(senders_.send(3, 3, file_of("three")));
  EXPECT_EQ(text_in(receiver_->receive(3).value()), "three");
  EXPECT_EQ(open_descriptors(), before);
  EXPECT_FALSE(receiver_->receive(1));
}

TEST_F(DescriptorChannelTest, NeverWaitsForWhatHasNotCome) {
  EXPECT_THAT(receiver_->receive(1).error().message, HasSubstr("no descriptor has come under the number 1"));
  ASSERT_TRUE(senders_.send(3, 5, file_of("five")));
  EXPECT_THAT(receiver_->receive(6).error().message, HasSubstr("under the number 6"));
}

TEST_F(DescriptorChannelTest, NeverWaitsForARankThatDoesNotRead) {
  const Descriptor file = file_of("x");
  Result<void> sent;
  uint64_t number = 0;
  while (sent && number < 1'000'000) sent = senders_.send(3, ++number, file);
  ASSERT_FALSE(sent) << "there is a bound";
  EXPECT_THAT(sent.error().message, HasSubstr("a descriptor to rank 3"));
  EXPECT_EQ(text_in(receiver_->receive(number - 1).value()), "x") << "what was sent before is there";
  EXPECT_TRUE(senders_.send(3, number, file)) << "there is room again";
}

TEST_F(DescriptorChannelTest, SaysThatARankIsGoneOrElsewhere) {
  EXPECT_THAT(senders_.send(2, 1, file_of("x")).error().message, HasSubstr("rank 2 takes no descriptors"));
  receiver_.reset();
  EXPECT_THAT(senders_.send(3, 1, file_of("x")).error().message, HasSubstr("Broken pipe"));
}

TEST_F(DescriptorChannelTest, SpeaksToTheRanksPresentProcess) {
  ASSERT_TRUE(senders_.send(3, 1, file_of("to the first")));
  auto ends = make_descriptor_channel().value();
  senders_.put(3, std::move(ends.first));
  ASSERT_TRUE(senders_.send(3, 2, file_of("to the second")));
  DescriptorReceiver second(std::move(ends.second));
  EXPECT_EQ(text_in(second.receive(2).value()), "to the second");
  EXPECT_THAT(receiver_->receive(2).error().message, HasSubstr("the head is gone"));
}

TEST_F(DescriptorChannelTest, TellsThatNoDescriptorWasLeftForIt) {
  // Once with descriptors left: the undefined-behaviour sanitizer needs some where it sees an error written at first.
  ASSERT_FALSE(receiver_->receive(1));
  ASSERT_TRUE(senders_.send(3, 1, file_of("one")));
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const Descriptor next(dup(0));  // the lowest number that is free
  const rlimit none{static_cast<rlim_t>(next.get()), before.rlim_max};
  const Descriptor taken(dup(0));
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const auto received = receiver_->receive(1);
  setrlimit(RLIMIT_NOFILE, &before);
  ASSERT_FALSE(received);
  EXPECT_THAT(received.error().message, HasSubstr("too many are open"));
}

}  // namespace
}  // namespace lorikeet::actors
