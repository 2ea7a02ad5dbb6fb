#include "actors/head/rendezvous_store.h"

#include "actors/wire/limits.h"
#include "tests/actors/actor_test.h"

namespace lorikeet::actors {
namespace {

class RendezvousStoreTest : public ActorTest {
 protected:
  void SetUp() override { store_ = system_.spawn(rendezvous_store); }
  void TearDown() override { end(store_); }

  RendezvousActor store_;
};

TEST_F(RendezvousStoreTest, GivesWhatWasPut) {
  EXPECT_TRUE(ask<bool>(store_, StorePut{"key", {1, 2}}));
  EXPECT_EQ(ask<StoreValue>(store_, StoreGet{"key"}).value, (std::vector<uint8_t>{1, 2}));
  EXPECT_TRUE(ask<bool>(store_, StorePut{"key", {3}}));
  EXPECT_EQ(ask<StoreValue>(store_, StoreGet{"key"}).value, std::vector<uint8_t>{3});
}

TEST_F(RendezvousStoreTest, AnswersAllThatWaitForAKeyWhenItComes) {
  auto first = self_->request(store_, caf::infinite, StoreGet{"key"});
  auto second = self_->request(store_, caf::infinite, StoreGet{"key"});
  run();
  EXPECT_TRUE(ask<bool>(store_, StorePut{"key", {7}}));
  int answered = 0;
  const auto take = [&](StoreValue& value) {
    EXPECT_EQ(value.value, std::vector<uint8_t>{7});
    ++answered;
  };
  first.receive(take, [](caf::error&) { FAIL(); });
  second.receive(take, [](caf::error&) { FAIL(); });
  EXPECT_EQ(answered, 2);
}

TEST_F(RendezvousStoreTest, TellsAllThatStillWaitWhenItEnds) {
  auto waiting = self_->request(store_, std::chrono::seconds(30), StoreGet{"key"});
  run();
  end(store_);
  advance(std::chrono::seconds(30));
  bool told = false;
  waiting.receive([](StoreValue&) { FAIL(); },
                  [&](caf::error& error) { told = error == caf::sec::request_receiver_down; });
  EXPECT_TRUE(told);
}

TEST_F(RendezvousStoreTest, RefusesAValueThatIsTooLarge) {
  EXPECT_FALSE(ask<bool>(store_, StorePut{"key", std::vector<uint8_t>(1 << 20)}));
}

TEST_F(RendezvousStoreTest, RefusesAKeyThatIsTooLong) {
  EXPECT_FALSE(ask<bool>(store_, StorePut{std::string(kMaxRendezvousKeyBytes + 1, 'k'), {1}}));
  EXPECT_TRUE(ask<bool>(store_, StorePut{std::string(kMaxRendezvousKeyBytes, 'k'), {1}}));
}

TEST_F(RendezvousStoreTest, RefusesMoreThanAllValuesMayTakeUntilOneIsReplaced) {
  const std::vector<uint8_t> value(kMaxRendezvousValueBytes);
  const size_t fit = kMaxRendezvousBytes / kMaxRendezvousValueBytes;
  for (size_t i = 0; i < fit; ++i) ASSERT_TRUE(ask<bool>(store_, StorePut{std::to_string(i), value}));
  EXPECT_FALSE(ask<bool>(store_, StorePut{"one more", {1}}));
  EXPECT_TRUE(ask<bool>(store_, StorePut{"0", {1}}));
  EXPECT_TRUE(ask<bool>(store_, StorePut{"one more", {1}}));
}

}  // namespace
}  // namespace lorikeet::actors
