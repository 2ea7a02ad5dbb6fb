#include "actors/head/held_requests.h"

#include <gtest/gtest.h>

namespace lorikeet::actors {
namespace {

using engine::SequenceId;

std::shared_ptr<engine::Request> request(uint64_t id, const std::string& adapter = "") {
  auto made = std::make_shared<engine::Request>();
  made->id = SequenceId(id);
  made->adapter = adapter;
  return made;
}

TEST(HeldRequests, GivesARequestWithTheDigestOfItsAdapter) {
  HeldRequests held;
  held.add_unresolved(request(1, "moby"));
  EXPECT_EQ(held.unresolved(), 1u);
  const auto resolved = held.resolved(SequenceId(1), "d1");
  ASSERT_TRUE(resolved);
  EXPECT_EQ(resolved->adapter, "d1");
  EXPECT_EQ(held.size(), 0u);
  EXPECT_FALSE(held.resolved(SequenceId(1), "d1"));
}

TEST(HeldRequests, GivesWaitingRequestsInOrderOfArrival) {
  HeldRequests held;
  held.add_waiting(request(2));
  held.add_waiting(request(1));
  const auto taken = held.take_waiting();
  ASSERT_EQ(taken.size(), 2u);
  EXPECT_EQ(taken[0]->id, SequenceId(2));
  EXPECT_EQ(held.size(), 0u);
}

TEST(HeldRequests, ForgetsACancelledRequest) {
  HeldRequests held;
  held.add_unresolved(request(1, "moby"));
  held.add_waiting(request(2));
  EXPECT_TRUE(held.erase(SequenceId(1)));
  EXPECT_TRUE(held.erase(SequenceId(2)));
  EXPECT_FALSE(held.erase(SequenceId(2)));
  EXPECT_FALSE(held.resolved(SequenceId(1), "d1"));
}

TEST(HeldRequests, HasThoseWithoutGrammarWaitForTheNextGroup) {
  HeldRequests held;
  held.add_without_grammar(request(2));
  held.add_without_grammar(request(1));
  held.add_without_grammar(request(3));
  EXPECT_EQ(held.size(), 3u);
  EXPECT_TRUE(held.erase(SequenceId(3)));
  EXPECT_TRUE(held.take_without_grammar(SequenceId(2)));
  EXPECT_FALSE(held.take_without_grammar(SequenceId(2)));
  held.group_lost();
  EXPECT_FALSE(held.take_without_grammar(SequenceId(1)));
  EXPECT_EQ(held.take_waiting().size(), 1u);
}

}  // namespace
}  // namespace lorikeet::actors
