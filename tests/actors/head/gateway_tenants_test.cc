// What the gateway lets the holder of a key do.
#include <gmock/gmock.h>

#include "tests/actors/head/gateway_fixture.h"

namespace lorikeet::actors {
namespace {

using engine::FinishReason;
using ::testing::HasSubstr;

std::shared_ptr<const Grant> of_tenant(const std::string& name, bool admin = false) {
  return std::make_shared<const Grant>(Grant{name, std::nullopt, admin});
}

TEST_F(GatewayTest, RefusesAdaptersThatTheKeyMayNotUse) {
  const auto grant = std::make_shared<const Grant>(Grant{"default", std::set<std::string, std::less<>>{"moby"}, false});
  for (const char* adapter : {"kjv", "nobody", ""}) {
    auto made = request(adapter);
    made.adapter = adapter;
    say(made, kClient, grant);
    ASSERT_FALSE(all<comm::Failure>().empty());
    EXPECT_EQ(all<comm::Failure>().back().code, "forbidden") << adapter;
  }
  say(request("base"), kClient, grant);
  EXPECT_EQ(heard_->submitted.size(), 1u) << "the base model is everybody's";
  auto made = request("kjv");
  made.adapter = "kjv";
  say(made, kClient, of_tenant("default"));
  EXPECT_EQ(heard_->submitted.size(), 2u);
}

TEST_F(GatewayTest, ShowsTheStatusToAdministratorsAlone) {
  say(comm::StatusRequest{"s"}, kClient, of_tenant("default"));
  ASSERT_EQ(all<comm::Failure>().size(), 1u);
  EXPECT_EQ(all<comm::Failure>()[0].code, "forbidden");
  EXPECT_EQ(all<comm::Failure>()[0].id, "s");
  say(comm::StatusRequest{"s"}, kClient, of_tenant("default", true));
  EXPECT_EQ(all<comm::StatusReply>().size(), 1u);
  say(comm::ResetPrefixCacheRequest{"r"}, kClient, of_tenant("default"));
  EXPECT_EQ(all<comm::Failure>().back().id, "r");
  EXPECT_EQ(all<comm::Failure>().back().code, "forbidden");
  EXPECT_TRUE(all<comm::PrefixCacheReset>().empty());
}

TEST_F(GatewayTest, CountsTheRequestsOfATenantOverAllItsClients) {
  say(request("a"), kClient, of_tenant("acme"));
  say(request("b"), kClient + 1, of_tenant("acme"));
  EXPECT_EQ(heard_->submitted.size(), 2u);
  say(request("c"), kClient + 2, of_tenant("acme"));
  ASSERT_EQ(all<comm::Failure>().size(), 1u);
  EXPECT_EQ(all<comm::Failure>()[0].code, "rate_limited");
  EXPECT_EQ(all<comm::Failure>()[0].retry_after_s, 30);
  say(request("d"), kClient + 2, of_tenant("other"));
  EXPECT_EQ(heard_->submitted.size(), 3u);
  advance(std::chrono::seconds(31));
  say(request("e"), kClient + 2, of_tenant("acme"));
  EXPECT_EQ(heard_->submitted.size(), 4u);
}

TEST_F(GatewayTest, CountsARequestOnceHoweverManyAnswersAndPartsItHas) {
  auto first = request("a");
  first.n = 3;
  say(first, kClient, of_tenant("acme"));
  for (const char* id : {"b", "c", "d"}) {  // the other prompts of the same exchange
    ClientSaid part{kClient, std::make_shared<comm::ClientMessage>(request(id)), of_tenant("acme"), true};
    tell(gateway_, std::move(part));
  }
  say(request("e"), kClient, of_tenant("acme"));
  EXPECT_EQ(heard_->submitted.size(), 7u);
  EXPECT_THAT(all<comm::Failure>(), ::testing::IsEmpty());
  say(request("f"), kClient, of_tenant("acme"));
  EXPECT_EQ(all<comm::Failure>().at(0).code, "rate_limited");
}

TEST_F(GatewayTest, CountsTheTokensOfAllAnswersToARequest) {
  auto made = request("a");
  made.max_tokens = 10;
  made.n = 4;
  say(made, kClient, of_tenant("small"));
  EXPECT_EQ(all<comm::Failure>().at(0).code, "invalid_request");
  EXPECT_TRUE(heard_->submitted.empty());
}

TEST_F(GatewayTest, HoldsATenantsTokensUntilItsRequestsHaveEnded) {
  const auto ask = [&](const std::string& id, int32_t max_tokens) {
    auto made = request(id);
    made.max_tokens = max_tokens;
    say(made, kClient, of_tenant("small"));
  };
  ask("a", 30);
  ASSERT_EQ(heard_->submitted.size(), 1u);
  const auto first = last_id();
  ask("b", 30);
  ASSERT_EQ(all<comm::Failure>().size(), 1u);
  EXPECT_EQ(all<comm::Failure>()[0].code, "rate_limited");
  EXPECT_EQ(all<comm::Failure>()[0].retry_after_s, 1);
  happen({finish(first, FinishReason::length)});
  ask("c", 30);
  ASSERT_EQ(heard_->submitted.size(), 2u);
  tell(gateway_, ClientGone{kClient});
  ask("d", 30);
  EXPECT_EQ(heard_->submitted.size(), 2u) << "the engine still runs what its client has left";
  happen({finish(last_id(), FinishReason::abort)});
  ask("e", 30);
  EXPECT_EQ(heard_->submitted.size(), 3u);
  ask("f", 90);
  EXPECT_EQ(all<comm::Failure>().back().code, "invalid_request");
  EXPECT_THAT(all<comm::Failure>().back().message, HasSubstr("may have 40 in flight"));
}

}  // namespace
}  // namespace lorikeet::actors
