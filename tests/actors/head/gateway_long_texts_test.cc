// Requests whose texts the gateway has prepared by another actor.
#include <gmock/gmock.h>

#include "tests/actors/head/gateway_fixture.h"

namespace lorikeet::actors {
namespace {

using engine::FinishReason;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Longer than the gateway tokenizes itself in these tests, and short enough for the model.
comm::GenerateRequest long_request(const std::string& id) {
  comm::GenerateRequest made;
  made.id = id;
  made.prompt = "It is a way I have of driving off the spleen and regulating the circulation.";
  return made;
}

TEST_F(GatewayTest, LetsLongTextsBePreparedElsewhereAndServesOthersMeanwhile) {
  self_->send(gateway_, ClientSaid{kClient, std::make_shared<comm::ClientMessage>(long_request("long"))});
  self_->send(gateway_, ClientSaid{kClient, std::make_shared<comm::ClientMessage>(long_request("long"))});
  self_->send(gateway_, ClientSaid{kClient, std::make_shared<comm::ClientMessage>(request("short"))});
  run();
  ASSERT_EQ(heard_->submitted.size(), 2u);
  EXPECT_LT(heard_->submitted[0]->prompt.size(), heard_->submitted[1]->prompt.size()) << "the short one came first";
  EXPECT_EQ(heard_->submitted[1]->prompt, tokenizer_->encode(*long_request("").prompt, true));
  ASSERT_EQ(all<comm::Failure>().size(), 1u);
  EXPECT_THAT(all<comm::Failure>()[0].message, HasSubstr("still running")) << "the second one of its name";
  happen({finish(heard_->submitted[1]->id, FinishReason::length)});
  EXPECT_EQ(all<comm::Done>().at(0).id, "long");
}

TEST_F(GatewayTest, EndsARequestWhoseTextIsBeingPrepared) {
  const auto send = [&](comm::ClientMessage message, uint64_t client) {
    self_->send(gateway_, ClientSaid{client, std::make_shared<comm::ClientMessage>(std::move(message))});
  };
  send(long_request("cancelled"), kClient);
  send(comm::Cancel{"cancelled"}, kClient);
  send(long_request("left"), kClient + 1);
  self_->send(gateway_, ClientGone{kClient + 1});
  run();
  EXPECT_THAT(heard_->submitted, IsEmpty());
  ASSERT_EQ(heard_->answers.size(), 1u);
  EXPECT_EQ(all<comm::Done>().at(0).finish_reason, "abort");
  send(long_request("stopped"), kClient);
  self_->send(gateway_, StopServing{"the server is going away"});
  run();
  EXPECT_EQ(all<comm::Failure>().at(0).code, "shutting_down");
  EXPECT_EQ(heard_->answers.size(), 2u);
}

TEST_F(GatewayTest, RefusesLongTextsPastTheirNumberAndThoseThatAreWrong) {
  for (const char* id : {"a", "b", "c"}) {
    auto made = long_request(id);
    if (std::string(id) == "b") made.adapter = "nobody";
    self_->send(gateway_, ClientSaid{kClient, std::make_shared<comm::ClientMessage>(made)});
  }
  run();
  ASSERT_EQ(all<comm::Failure>().size(), 2u);
  EXPECT_EQ(all<comm::Failure>()[0].code, "queue_full");
  EXPECT_EQ(all<comm::Failure>()[0].id, "c");
  EXPECT_EQ(all<comm::Failure>()[1].code, "unknown_adapter");
  EXPECT_EQ(heard_->submitted.size(), 1u);
}

TEST_F(GatewayTest, RefusesLongTextsPastTheirBytesAndCountsThoseThatAreCancelledUntilTheyAreLetGoOf) {
  const auto send = [&](comm::ClientMessage message) {
    self_->send(gateway_, ClientSaid{kClient, std::make_shared<comm::ClientMessage>(std::move(message))});
  };
  auto large = long_request("large");
  large.prompt = std::string(kMaxLongBytes - 10, 'x');
  send(large);
  send(comm::Cancel{"large"});
  send(long_request("no room"));
  run();
  ASSERT_EQ(all<comm::Failure>().size(), 1u);
  EXPECT_EQ(all<comm::Failure>()[0].id, "no room");
  EXPECT_EQ(all<comm::Failure>()[0].code, "queue_full");
  EXPECT_EQ(all<comm::Done>().at(0).id, "large");
  EXPECT_THAT(heard_->submitted, IsEmpty());
  send(long_request("room"));
  run();
  EXPECT_EQ(heard_->submitted.size(), 1u);
}

TEST_F(GatewayTest, LetsAMillionEmptyMessagesBePreparedElsewhere) {
  comm::GenerateRequest made = request("empty");
  made.prompt.reset();
  made.prompt_token_ids.reset();
  made.messages.emplace(1000, comm::Message{"", ""});
  self_->send(gateway_, ClientSaid{kClient, std::make_shared<comm::ClientMessage>(made)});
  self_->send(gateway_, ClientSaid{kClient, std::make_shared<comm::ClientMessage>(request("short"))});
  run();
  EXPECT_EQ(heard_->submitted.size(), 1u);
  ASSERT_EQ(all<comm::Failure>().size(), 1u) << "too long for this model";
  EXPECT_EQ(all<comm::Failure>()[0].id, "empty");
}

TEST_F(GatewayTest, LeavesItToTheTextPreparerToFreeManyMessagesThatItRefuses) {
  comm::GenerateRequest made = request("many");
  made.prompt.reset();
  made.messages.emplace(2000, comm::Message{"", ""});
  auto message = std::make_shared<comm::ClientMessage>(std::move(made));
  const std::weak_ptr<comm::ClientMessage> watched = message;
  self_->send(gateway_, ClientSaid{kClient, std::move(message)});
  while (heard_->answers.empty() && coordinator_.try_run_once()) {
  }
  ASSERT_EQ(all<comm::Failure>().size(), 1u);
  EXPECT_EQ(all<comm::Failure>()[0].code, "queue_full");
  EXPECT_FALSE(watched.expired()) << "the gateway has not freed it";
  run();
  EXPECT_TRUE(watched.expired());
}

}  // namespace
}  // namespace lorikeet::actors
