#include "launcher/chat_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorikeet::launcher {
namespace {

using testing::HasSubstr;
using Kind = ChatOrder::Kind;

TEST(ChatSession, SendsTheWholeTalk) {
  ChatSession session({}, "kjv", "Be brief.");
  EXPECT_EQ(session.take("Hello").kind, Kind::send);
  session.answered("Peace be unto you.");
  EXPECT_EQ(session.take("And then?").kind, Kind::send);
  const auto request = session.request();
  EXPECT_EQ(request.adapter, "kjv");
  ASSERT_EQ(request.messages->size(), 4u);
  EXPECT_EQ(request.messages->at(0).role, "system");
  EXPECT_EQ(request.messages->at(2).content, "Peace be unto you.");
  EXPECT_EQ(request.messages->at(3).content, "And then?");
}

TEST(ChatSession, ChangesTheAdapterInMidTalk) {
  ChatSession session({}, "kjv", std::nullopt);
  session.take("Hello");
  session.answered("Peace.");
  const ChatOrder order = session.take("/adapter  moby ");
  EXPECT_EQ(order.kind, Kind::adapter);
  EXPECT_EQ(order.argument, "moby");
  session.use_adapter(order.argument);
  EXPECT_EQ(session.request().adapter, "moby");
  session.use_adapter("");
  EXPECT_FALSE(session.request().adapter);
  EXPECT_EQ(session.messages().size(), 2u);
}

TEST(ChatSession, TakesAMessageOutThatWasRefused) {
  ChatSession session({}, "", std::nullopt);
  session.take("Hello");
  session.refused();
  EXPECT_TRUE(session.messages().empty());
}

TEST(ChatSession, AnswersTheLastMessageAgain) {
  ChatSession session({}, "", std::nullopt);
  EXPECT_THAT(session.take("/retry").say, HasSubstr("no answer yet"));
  session.take("Hello");
  session.answered("Hi.");
  EXPECT_EQ(session.take("/retry").kind, Kind::retry);
  EXPECT_EQ(session.messages().size(), 1u);
}

TEST(ChatSession, BeginsAnewBehindItsSystemMessage) {
  ChatSession session({}, "", "Be brief.");
  session.take("Hello");
  session.take("/new");
  EXPECT_EQ(session.messages().size(), 1u);
  session.take("/system Be long.");
  EXPECT_EQ(session.messages().front().content, "Be long.");
  session.take("/system");
  EXPECT_TRUE(session.messages().empty());
}

TEST(ChatSession, HelpsWithCommands) {
  ChatSession session({}, "", std::nullopt);
  EXPECT_THAT(session.take("/help").say, HasSubstr("/adapter NAME"));
  EXPECT_EQ(session.take("/adaptor moby").say, "there is no /adaptor; did you mean /adapter?");
  EXPECT_EQ(session.take("  ").kind, Kind::nothing);
  EXPECT_EQ(session.take("/quit").kind, Kind::quit);
}

}  // namespace
}  // namespace lorikeet::launcher
