#include "comm/client/body_decoder.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

namespace lorikeet::comm {
namespace {

constexpr size_t kMaxBody = 1 << 20;

ClientFrames frames_of(const std::string& body, const std::string& kind = "generate") {
  ClientFrames frames;
  for (const std::string& part : {std::string("lorikeet/1"), std::string("json"), kind, body}) {
    frames.emplace_back(part.data(), part.size());
  }
  return frames;
}

std::string request(const std::string& id, size_t size = 10) {
  return R"({"id":")" + id + R"(","prompt":")" + std::string(size, 'x') + R"("})";
}

class BodyDecoderTest : public ::testing::Test {
 protected:
  // The next `count` messages, in the order of their decoding.
  std::vector<BodyDecoder::Item> take(size_t count) {
    std::vector<BodyDecoder::Item> all;
    while (all.size() < count) {
      {
        std::unique_lock lock(mutex_);
        if (!changed_.wait_for(lock, std::chrono::seconds(60), [this] { return is_woken_; })) return all;
        is_woken_ = false;
      }
      for (auto& item : decoder_.take()) all.push_back(std::move(item));
    }
    return all;
  }

  static std::string id_of(const BodyDecoder::Item& item) {
    return item.message ? std::get<GenerateRequest>(item.message->message).id : item.message.error().message;
  }

  // The decoder stops after the message that it works at, until it is let go on.
  void hold() { held_ = true; }
  void let_go() {
    {
      const std::lock_guard lock(mutex_);
      held_ = false;
    }
    changed_.notify_all();
  }

  void woken() {
    std::unique_lock lock(mutex_);
    is_woken_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !held_; });
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_woken_ = false, held_ = false;
  BodyDecoder decoder_{kMaxBody, [this] { woken(); }};
};

TEST_F(BodyDecoderTest, DecodesWhatItIsGivenAndTellsWhatIsWrong) {
  decoder_.add(1, frames_of(request("a")));
  decoder_.add(1, frames_of("{"));
  decoder_.add(1, frames_of(request("b", 2 * kMaxBody)));
  const auto items = take(3);
  ASSERT_EQ(items.size(), 3u);
  EXPECT_EQ(id_of(items[0]), "a");
  EXPECT_FALSE(items[1].message);
  EXPECT_FALSE(items[2].message);
  EXPECT_EQ(decoder_.waiting_bytes(), 0u);
}

TEST_F(BodyDecoderTest, KeepsTheOrderOfAClientAndLetsClientsTakeTurns) {
  constexpr size_t kMany = 50;
  hold();
  for (size_t i = 0; i < kMany; ++i) decoder_.add(1, frames_of(request(std::to_string(i))));
  decoder_.add(2, frames_of(request("other")));
  let_go();
  const auto items = take(kMany + 1);
  ASSERT_EQ(items.size(), kMany + 1);
  size_t next = 0, other = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].client == 2) {
      other = i;
    } else {
      EXPECT_EQ(id_of(items[i]), std::to_string(next++));
    }
  }
  EXPECT_LE(other, 2u) << "it came last and must not be served last";
}

TEST_F(BodyDecoderTest, ForgetsAClientThatIsGone) {
  hold();
  for (int i = 0; i < 20; ++i) decoder_.add(1, frames_of(request(std::to_string(i))));
  decoder_.forget(1);
  decoder_.add(2, frames_of(request("other")));
  let_go();
  std::vector<BodyDecoder::Item> items;
  while (items.empty() || items.back().client != 2) {
    auto more = take(1);
    ASSERT_FALSE(more.empty());
    for (auto& item : more) items.push_back(std::move(item));
  }
  EXPECT_LE(items.size(), 2u) << "the one that had been begun, at most";
  EXPECT_EQ(decoder_.waiting_bytes(), 0u);
}

TEST_F(BodyDecoderTest, DecodesOnWhenItHasFreedWhatNobodyWants) {
  decoder_.add(1, frames_of(request("late")));
  auto late = take(1);
  ASSERT_EQ(late.size(), 1u);
  decoder_.discard(std::move(late[0]));
  decoder_.add(2, frames_of(request("next")));
  const auto items = take(1);
  ASSERT_EQ(items.size(), 1u);
  EXPECT_EQ(id_of(items[0]), "next");
}

}  // namespace
}  // namespace lorikeet::comm
