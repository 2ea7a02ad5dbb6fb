#include "actors/head/tenant_limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorikeet::actors {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

const TenantLimits::TimePoint kStart{};

TEST(TenantLimits, BoundNobodyWhoHasNone) {
  TenantLimits limits({{"other", 1, 1}, {"unbounded", 0, 0}});
  for (int i = 0; i < 100; ++i) {
    for (const char* tenant : {"default", "unbounded"}) {
      EXPECT_FALSE(limits.take_request(tenant, kStart));
      EXPECT_FALSE(limits.take_tokens(tenant, 1 << 30));
    }
  }
  limits.give_tokens("default", 5);
}

TEST(TenantLimits, AllowTheRequestsOfAMinuteAtOnceAndThenOneAfterTheOther) {
  TenantLimits limits({{"acme", 30, 0}});
  for (int i = 0; i < 30; ++i) EXPECT_FALSE(limits.take_request("acme", kStart)) << i;
  const auto refusal = limits.take_request("acme", kStart);
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->retry_after_s, 2);
  EXPECT_THAT(refusal->message, HasSubstr("tenant acme has sent its 30 requests"));
  EXPECT_TRUE(limits.take_request("acme", kStart + milliseconds(1900)));
  EXPECT_FALSE(limits.take_request("acme", kStart + milliseconds(2001)));
  EXPECT_TRUE(limits.take_request("acme", kStart + milliseconds(2001)));
  const auto later = kStart + seconds(3600);
  for (int i = 0; i < 30; ++i) EXPECT_FALSE(limits.take_request("acme", later)) << i;
  EXPECT_TRUE(limits.take_request("acme", later)) << "an hour of silence saves no more than a minute's requests";
}

TEST(TenantLimits, CountTheTokensInFlight) {
  TenantLimits limits({{"acme", 0, 100}});
  EXPECT_FALSE(limits.take_tokens("acme", 60));
  const auto busy = limits.take_tokens("acme", 41);
  ASSERT_TRUE(busy);
  EXPECT_GT(busy->retry_after_s, 0);
  EXPECT_FALSE(limits.take_tokens("acme", 40));
  limits.give_tokens("acme", 60);
  EXPECT_FALSE(limits.take_tokens("acme", 60));
  const auto never = limits.take_tokens("acme", 101);
  ASSERT_TRUE(never);
  EXPECT_EQ(never->retry_after_s, 0);
}

}  // namespace
}  // namespace lorikeet::actors
