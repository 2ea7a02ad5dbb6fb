#include "comm/openai/openapi.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "comm/openai/adapters.h"
#include "comm/openai/openai_request.h"
#include "comm/openai/tokenize.h"

namespace lorikeet::comm {
namespace {

using nlohmann::json;

const json& document() {
  static const json parsed = json::parse(openapi_document("1.2.3"));
  return parsed;
}

std::set<std::string, std::less<>> described_fields(const char* schema) {
  std::set<std::string, std::less<>> names;
  for (const auto& item : document()["components"]["schemas"][schema]["properties"].items()) names.insert(item.key());
  return names;
}

void collect_references(const json& value, std::set<std::string>& found) {
  if (!value.is_structured()) return;
  for (const auto& item : value.items()) {
    if (item.key() == "$ref") found.insert(item.value().get<std::string>());
    collect_references(item.value(), found);
  }
}

TEST(OpenApi, DescribesExactlyTheFieldsThatTheReadersTake) {
  EXPECT_EQ(described_fields("CompletionRequest"), fields_of(OpenAiRequest::Kind::completion));
  EXPECT_EQ(described_fields("ChatRequest"), fields_of(OpenAiRequest::Kind::chat));
  EXPECT_EQ(described_fields("TokenizeRequest"), fields_of_tokenize());
  EXPECT_EQ(described_fields("DetokenizeRequest"), fields_of_detokenize());
  EXPECT_EQ(described_fields("LoadAdapterRequest"), fields_of_load_adapter());
  EXPECT_EQ(described_fields("UnloadAdapterRequest"), fields_of_unload_adapter());
}

TEST(OpenApi, RefersToSchemasThatAreThereAndToAllOfThem) {
  std::set<std::string> referred;
  collect_references(document(), referred);
  std::set<std::string> there;
  for (const auto& item : document()["components"]["schemas"].items()) {
    there.insert("#/components/schemas/" + item.key());
  }
  EXPECT_EQ(referred, there);
}

TEST(OpenApi, NamesItsVersionAndGivesEveryOperationAnAnswerAndTheErrorsOfAnyRequest) {
  EXPECT_EQ(document()["openapi"], "3.1.0");
  EXPECT_EQ(document()["info"]["version"], "1.2.3");
  for (const auto& path : document()["paths"].items()) {
    for (const auto& operation : path.value().items()) {
      const json& answers = operation.value()["responses"];
      for (const char* status : {"200", "400", "408", "413", "431", "503"}) {
        EXPECT_TRUE(answers.contains(status)) << operation.key() << " " << path.key() << " " << status;
      }
      const bool open = operation.value().contains("security");
      EXPECT_EQ(answers.contains("401"), !open) << path.key();
      EXPECT_EQ(open, path.key() == "/health" || path.key() == "/ping") << path.key();
    }
  }
}

}  // namespace
}  // namespace lorikeet::comm
