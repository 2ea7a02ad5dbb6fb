#include "model/tokenizer/detokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "model/tokenizer/utf8.h"
#include "tests/model/tokenizer/tokenizer_fixtures.h"

namespace lorikeet::model::testing {
namespace {

using Ids = std::vector<int32_t>;

std::shared_ptr<const Tokenizer> tiny() {
  return load_tokenizer(kTinyModel);
}

// Ids of the tokens of single bytes.
Ids bytes(const std::string& text) {
  Ids ids;
  for (const char byte : text) {
    for (int32_t id = 0; id < tiny()->vocab_size(); ++id) {
      if (tiny()->bytes_of(id) == std::string_view(&byte, 1)) ids.push_back(id);
    }
  }
  EXPECT_EQ(ids.size(), text.size());
  return ids;
}

TEST(Detokenizer, HoldsAnUnfinishedCharacterBack) {
  const Ids ids = bytes("a\xE6\xA0\xB9!");
  Detokenizer stream(tiny(), true);
  EXPECT_EQ(stream.push(ids[0]), "a");
  EXPECT_EQ(stream.push(ids[1]), "");
  EXPECT_EQ(stream.push(ids[2]), "");
  EXPECT_EQ(stream.push(ids[3]), "根");
  EXPECT_EQ(stream.push(ids[4]), "!");
  EXPECT_EQ(stream.flush(), "");
}

TEST(Detokenizer, GivesUpOnBytesAsSoonAsTheyCanBecomeNothing) {
  const Ids ids = bytes("\xE6z\xF0\x9F\x98");
  Detokenizer stream(tiny(), true);
  EXPECT_EQ(stream.push(ids[0]), "");
  EXPECT_EQ(stream.push(ids[1]), "\uFFFDz");
  EXPECT_EQ(stream.push(ids[2]), "");
  EXPECT_EQ(stream.push(ids[3]), "");
  EXPECT_EQ(stream.push(ids[4]), "");
  EXPECT_EQ(stream.flush(), "\uFFFD");
  EXPECT_EQ(stream.flush(), "");
}

TEST(Detokenizer, LeavesSpecialTokensOutWhereAsked) {
  Detokenizer skipping(tiny(), true), keeping(tiny(), false);
  EXPECT_EQ(skipping.push(2047), "");
  EXPECT_EQ(keeping.push(2047), "<|im_end|>");
  EXPECT_EQ(keeping.push(100000), "");
  EXPECT_EQ(keeping.push(-1), "");
}

TEST(Detokenizer, EqualsDecodeForRandomIds) {
  std::mt19937 random(3);
  std::vector<int32_t> single_bytes;
  for (int32_t id = 0; id < tiny()->vocab_size(); ++id) {
    if (tiny()->bytes_of(id).size() == 1 && static_cast<unsigned char>(tiny()->bytes_of(id)[0]) >= 0x80) {
      single_bytes.push_back(id);
    }
  }
  ASSERT_EQ(single_bytes.size(), 128u);
  for (int round = 0; round < 3000; ++round) {
    Ids ids;
    for (size_t i = random() % 30; i > 0; --i) {
      ids.push_back(random() % 4 ? single_bytes[random() % single_bytes.size()]
                                 : static_cast<int32_t>(random() % 2060));
    }
    const bool skip_special = random() % 2;
    Detokenizer stream(tiny(), skip_special);
    std::string text;
    for (const int32_t id : ids) {
      const std::string piece = stream.push(id);
      ASSERT_TRUE(is_valid_utf8(piece));
      text += piece;
    }
    text += stream.flush();
    ASSERT_EQ(text, tiny()->decode(ids, skip_special));
  }
}

TEST(Detokenizer, EqualsDecodeForRealText) {
  const std::string text = "日本語 and Ελληνικά, naïve 😀👍🏽!";
  const Ids ids = tiny()->encode(text, false);
  Detokenizer stream(tiny(), true);
  std::string streamed;
  for (const int32_t id : ids) streamed += stream.push(id);
  EXPECT_EQ(streamed, text);
}

}  // namespace
}  // namespace lorikeet::model::testing
