#include "actors/head/access.h"

#include <gtest/gtest.h>

namespace lorikeet::actors {
namespace {

constexpr const char* kCurve = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";  // of ZeroMQ's own documentation

AccessOptions two_keys() {
  AccessOptions options;
  CredentialOptions acme;
  acme.key = "first";
  acme.tenant = "acme";
  acme.all_adapters = false;
  acme.adapters = {"moby"};
  acme.admin = false;
  CredentialOptions plain;
  plain.key = "second";
  CredentialOptions curve;
  curve.curve_public_key = kCurve;
  curve.tenant = "far";
  options.credentials = {acme, plain, curve};
  return options;
}

TEST(Access, LetsEverybodyDoEverythingWithoutKeys) {
  const Access access({});
  EXPECT_FALSE(access.asks_for_keys());
  const auto grant = access.of_bearer("");
  ASSERT_TRUE(grant);
  EXPECT_EQ(grant->tenant, "default");
  EXPECT_TRUE(grant->admin);
  EXPECT_TRUE(grant->may_use("anything"));
}

TEST(Access, TiesAKeyToItsTenantAndItsAdapters) {
  const Access access(two_keys());
  const auto acme = access.of_bearer("Bearer first");
  ASSERT_TRUE(acme);
  EXPECT_EQ(acme->tenant, "acme");
  EXPECT_FALSE(acme->admin);
  EXPECT_TRUE(acme->may_use("moby"));
  EXPECT_TRUE(acme->may_use(std::nullopt)) << "the base model is everybody's";
  EXPECT_FALSE(acme->may_use("kjv"));
  EXPECT_EQ(access.of_bearer("bearer second")->tenant, "default");
  for (const char* wrong : {"", "Bearer", "Bearer ", "Bearer firs", "Bearer first ", "first", "Basic first"}) {
    EXPECT_FALSE(access.of_bearer(wrong)) << wrong;
  }
  EXPECT_FALSE(access.of_bearer("Bearer " + std::string(kCurve)));
  EXPECT_FALSE(access.of_bearer("Bearer " + std::string(1 << 20, 'x')));
}

TEST(Access, KnowsPasswordsByTheirTenantAndCurveByItsPublicKey) {
  const Access access(two_keys());
  const auto tenant_of = [&](std::optional<size_t> number) {
    return number ? access.numbered(std::to_string(*number))->tenant : "nobody";
  };
  EXPECT_EQ(tenant_of(access.of_password("acme", "first")), "acme");
  EXPECT_EQ(tenant_of(access.of_password("default", "second")), "default");
  EXPECT_EQ(tenant_of(access.of_password("acme", "second")), "nobody");
  EXPECT_EQ(tenant_of(access.of_password("", "first")), "nobody");
  EXPECT_EQ(tenant_of(access.of_password("far", "")), "nobody");
  EXPECT_EQ(tenant_of(access.of_curve(kCurve)), "far");
  EXPECT_EQ(tenant_of(access.of_curve("first")), "nobody");
  EXPECT_EQ(tenant_of(access.of_curve("")), "nobody");
}

TEST(Access, GivesANumberThatThereIsNotNothing) {
  const Access access(two_keys());
  for (const char* number : {"3", "", "x", "-1", "99999999999999999999999"}) {
    const auto grant = access.numbered(number);
    ASSERT_TRUE(grant) << number;
    EXPECT_FALSE(grant->admin) << number;
    EXPECT_FALSE(grant->may_use("moby")) << number;
  }
}

}  // namespace
}  // namespace lorikeet::actors
