#include "actors/head/adapter_names.h"

#include <gtest/gtest.h>

namespace lorikeet::actors {
namespace {

TEST(AdapterNames, KeepTheOrderInWhichTheyCameAndShareOneTable) {
  AdapterNames names(AdapterNames::List{{"b", "/b"}, {"a", "/a"}});
  const AdapterNames copy = names;
  names.set("c", "/c");
  names.set("b", "/other");
  EXPECT_EQ(copy.list(), (AdapterNames::List{{"b", "/other"}, {"a", "/a"}, {"c", "/c"}}));
  EXPECT_TRUE(copy.contains("c"));
  EXPECT_EQ(copy.directory_of("b"), "/other");
  names.erase("b");
  names.erase("b");
  EXPECT_FALSE(copy.contains("b"));
  EXPECT_EQ(copy.directory_of("b"), std::nullopt);
  EXPECT_EQ(copy.size(), 2u);
  names.set("b", "/b");
  EXPECT_EQ(copy.list().back().first, "b");
}

}  // namespace
}  // namespace lorikeet::actors
