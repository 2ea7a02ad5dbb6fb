// --special-tokens-in-messages: the ids of conversations that spell special tokens are those that transformers makes
// (tests/data/make/trusted_prompts.py).
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/chat/chat_template.h"
#include "tests/model/tokenizer/tokenizer_fixtures.h"

namespace lorikeet::model::testing {
namespace {

using nlohmann::json;

std::string digest(const std::vector<int32_t>& ids) {
  const std::string text = fmt::format("{}", fmt::join(ids, ","));
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_Digest(text.data(), text.size(), bytes, &size, EVP_sha256(), nullptr);
  std::string digits;
  for (int i = 0; i < 8; ++i) digits += fmt::format("{:02x}", bytes[i]);
  return digits;
}

std::vector<ChatMessage> messages_of(const json& conversation) {
  std::vector<ChatMessage> messages;
  for (const json& one : conversation) messages.push_back({one["role"], one["content"]});
  return messages;
}

void expect_ids(const std::filesystem::path& dir, const std::string& name) {
  const auto tokenizer = load_tokenizer(dir);
  const json data = read_json(kSource / "tests/data/chat_templates/trusted.json");
  size_t compared = 0, differ_apart = 0;
  for (const auto& [stem, digests] : data["ids"][name].items()) {
    const auto file = kSource / "tests/data/jinja/templates" / (stem + ".jinja");
    auto apart = ChatTemplate::load(dir, *tokenizer, file.string());
    ASSERT_TRUE(apart) << apart.error().message;
    auto trusting = *apart;
    trusting.trust_special_tokens();
    for (size_t i = 0; i < digests.size(); ++i) {
      SCOPED_TRACE(fmt::format("{}, conversation {}", stem, i));
      const auto messages = messages_of(data["conversations"][i]);
      const auto ids = trusting.render(messages, *tokenizer);
      if (digests[i].is_null()) {
        EXPECT_FALSE(ids);
        continue;
      }
      ASSERT_TRUE(ids) << ids.error().message;
      EXPECT_EQ(digest(*ids), digests[i].get<std::string>());
      ++compared;
      differ_apart += apart->render(messages, *tokenizer).value() != *ids;
    }
  }
  EXPECT_GT(compared, 180u);
  EXPECT_GT(differ_apart, 100u) << "without the flag, what messages spell is text";
}

TEST(TrustedPrompts, HaveTransformersIdsOfTheExampleModel) {
  expect_ids(kTinyModel, "tiny");
}

TEST(TrustedPrompts, HaveTransformersIdsOfQwen2) {
  if (!std::filesystem::exists(kQwen2)) GTEST_SKIP() << "the published vocabulary is not here: " << kQwen2;
  expect_ids(kQwen2, "qwen2");
}

}  // namespace
}  // namespace lorikeet::model::testing
