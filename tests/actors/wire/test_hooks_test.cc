#include "actors/wire/test_hooks.h"

#include <gtest/gtest.h>

namespace lorikeet::actors {
namespace {

TEST(TestHooks, AreOffUnlessSet) {
  EXPECT_FALSE(TestHooks("").value_of("hold_adapter_load"));
  EXPECT_FALSE(TestHooks().value_of(""));
}

TEST(TestHooks, AreTakenApartAtCommas) {
  const TestHooks hooks("hold_adapter_load=kjv,release_file=/tmp/a=b,plain,,");
  EXPECT_EQ(hooks.value_of("hold_adapter_load"), "kjv");
  EXPECT_EQ(hooks.value_of("release_file"), "/tmp/a=b");
  EXPECT_EQ(hooks.value_of("plain"), "");
  EXPECT_FALSE(hooks.value_of("other"));
}

}  // namespace
}  // namespace lorikeet::actors
