#include "comm/openai/models.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace lorikeet::comm {
namespace {

using nlohmann::json;

TEST(Models, NameTheBaseModelAndItsAdapters) {
  EXPECT_EQ(
      json::parse(model_list({{"base", "/models/base", ""}, {"moby", "/adapters/moby", "base"}}, 1700000000, 2048)),
      json::parse(R"({"object": "list", "data": [
                {"id": "base", "object": "model", "created": 1700000000, "owned_by": "lorikeet",
                 "root": "/models/base", "parent": null, "max_model_len": 2048},
                {"id": "moby", "object": "model", "created": 1700000000, "owned_by": "lorikeet",
                 "root": "/adapters/moby", "parent": "base", "max_model_len": 2048}]})"));
  EXPECT_EQ(json::parse(model_card({"base", "/models/base", ""}, 1, 2))["id"], "base");
}

TEST(Models, AreTheBaseModelWhereTheirNameIsLeftOutOrEmpty) {
  const ModelNames base{"base", {}};
  EXPECT_EQ(adapter_of(std::nullopt, base), std::nullopt);
  EXPECT_EQ(adapter_of("", base), std::nullopt);
  EXPECT_EQ(adapter_of("base", base), std::nullopt);
  EXPECT_EQ(adapter_of("base:moby", base), "moby");
  EXPECT_EQ(adapter_of("moby", base), "moby");
}

TEST(Models, OfSeveralNamesAreTheBaseModelUnderEachOfThem) {
  const ModelNames names{"base", {"gpt-4", "a:b"}};
  for (const char* name : {"base", "gpt-4", "a:b"}) {
    EXPECT_EQ(adapter_of(name, names), std::nullopt);
    EXPECT_EQ(adapter_of(std::string(name) + ":moby:1", names), "moby:1");
  }
  EXPECT_EQ(adapter_of("a", names), "a");
  EXPECT_EQ(adapter_of("gpt", names), "gpt");
  EXPECT_EQ(adapter_of("x:base", names), "x:base");
}

TEST(Models, HaveTheNameInAnAnswerThatWasAskedForElseTheBaseModels) {
  EXPECT_EQ(answering_model(std::nullopt, "base"), "base");
  EXPECT_EQ(answering_model("", "base"), "base");
  EXPECT_EQ(answering_model("base:moby", "base"), "base:moby");
}

}  // namespace
}  // namespace lorikeet::comm
