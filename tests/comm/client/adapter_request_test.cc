#include "comm/client/adapter_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "comm/client/limits.h"

namespace lorikeet::comm {
namespace {

using ::testing::HasSubstr;

TEST(AdapterName, IsTextThatStandsWithinALine) {
  for (const std::string name : {"kjv", "of K\xC3\xB6nig", "\xE4\xB8\x80", "a b"})
    EXPECT_TRUE(is_adapter_name(name)) << name;
  EXPECT_TRUE(is_adapter_name(std::string(kMaxAdapterBytes, 'x')));
  EXPECT_FALSE(is_adapter_name(std::string(kMaxAdapterBytes + 1, 'x')));
  for (const std::string name : {"", "a\nb", "a\x1b[1m", "a\x7f", "a\xff", "a\xe2\x80\xae", "a\xe2\x80\xa8"}) {
    EXPECT_FALSE(is_adapter_name(name)) << name;
  }
}

TEST(AdapterRequests, OfNamesAndPathsThatNoneCanHaveAreRefused) {
  AdapterRequest request;
  request.id = "1";
  request.action = "load";
  request.name = "kjv";
  request.path = "/adapters/kjv";
  EXPECT_TRUE(check_sizes(request));
  request.path = "/adapters\n/kjv";
  EXPECT_THAT(check_sizes(request).error().message, HasSubstr("path has"));
  request.path = "/adapters/kjv";
  request.name = "k\xffv";
  EXPECT_THAT(check_sizes(request).error().message, HasSubstr("of UTF-8 and no control characters"));
  request.name = kBaseModel;
  EXPECT_THAT(check_sizes(request).error().message, HasSubstr("stands for the base model"));
}

}  // namespace
}  // namespace lorikeet::comm
