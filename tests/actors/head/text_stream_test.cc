#include "actors/head/text_stream.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace lorikeet::actors {
namespace {

class TextStreamTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const auto dir = std::filesystem::path(LORIKEET_SOURCE_DIR) / "examples/models/tiny-qwen2-gptq-int4";
    tokenizer_ = model::Tokenizer::load(dir).value();
  }

  // The text of all ids up to the end of the answer.
  static std::string run(TextStream& stream, const std::vector<int32_t>& ids) {
    std::string text;
    for (const int32_t id : ids) {
      text += stream.push(id);
      if (stream.matched()) return text;
    }
    return text + stream.flush();
  }

  static std::vector<int32_t> encode(const std::string& text) { return tokenizer_->encode(text, false); }

  static inline std::shared_ptr<const model::Tokenizer> tokenizer_;
};

constexpr int32_t kEos = 2047;

TEST_F(TextStreamTest, GivesTheTextOfTheIds) {
  TextStream stream(tokenizer_, {});
  EXPECT_EQ(run(stream, encode("Call me Ishmael – some years ago")), "Call me Ishmael – some years ago");
}

TEST_F(TextStreamTest, EndsBeforeAStopStringThatSpansTokens) {
  TextStream stream(tokenizer_, {{"mael. S", "nowhere"}, {}, false, true});
  EXPECT_EQ(run(stream, encode("Call me Ishmael. Some years")), "Call me Ish");
  EXPECT_EQ(stream.matched(), "mael. S");
  EXPECT_EQ(stream.flush(), "");
}

TEST_F(TextStreamTest, KeepsTheStopStringWhereItIsWanted) {
  TextStream stream(tokenizer_, {{"mael."}, {}, true, true});
  EXPECT_EQ(run(stream, encode("Call me Ishmael. Some years")), "Call me Ishmael.");
}

TEST_F(TextStreamTest, GivesWhatOnlyBeganLikeAStopString) {
  TextStream stream(tokenizer_, {{"years and"}, {}, false, true});
  EXPECT_EQ(run(stream, encode("Some years")), "Some years");
  EXPECT_FALSE(stream.matched());
}

TEST_F(TextStreamTest, FindsSpecialTokensOfStopStringsThatItLeavesOutOfTheText) {
  const auto ids = tokenizer_->encode("Some<|im_start|> years<|im_end|> ago", true);
  TextStream::Options options;
  options.stop = {"nowhere", " years<|im_end|>"};
  options.marked_stop = {"", " years" + TextStream::marked("<|im_end|>")};
  TextStream stream(tokenizer_, options);
  EXPECT_EQ(run(stream, ids), "Some");
  EXPECT_EQ(stream.matched(), " years<|im_end|>");
  TextStream spelt(tokenizer_, options);
  EXPECT_EQ(run(spelt, encode("Some years<|im_end|> ago")), "Some") << "as text it is found, too";
  options.stop[1] = "ago<|im_end|>";
  options.marked_stop[1] = "ago" + TextStream::marked("<|im_end|>");
  TextStream without(tokenizer_, options);
  EXPECT_EQ(run(without, ids), "Some years ago");
  EXPECT_FALSE(without.matched());
}

TEST_F(TextStreamTest, PassesOverStopStringsThatEndWithinMinTokens) {
  const std::string text = "years and years and years";
  const auto ids = encode(text);
  TextStream::Options options;
  options.stop = {"years"};
  for (size_t min_tokens = 0; min_tokens <= ids.size(); ++min_tokens) {
    // By the definition: the first occurrence that ends past the text of so many tokens.
    const size_t passed = tokenizer_->decode({ids.data(), min_tokens}, true).size();
    size_t at = text.find("years");
    while (at != std::string::npos && at + 5 <= passed) at = text.find("years", at + 1);
    options.min_tokens = static_cast<int32_t>(min_tokens);
    TextStream stream(tokenizer_, options);
    EXPECT_EQ(run(stream, ids), text.substr(0, at)) << min_tokens;
    EXPECT_EQ(stream.matched().has_value(), at != std::string::npos) << min_tokens;
  }
}

TEST_F(TextStreamTest, LeavesOutTheTextOfAStopId) {
  const auto ids = encode("Some years");
  TextStream without(tokenizer_, {{}, {ids.back()}, false, true});
  EXPECT_EQ(run(without, ids), tokenizer_->decode({ids.data(), ids.size() - 1}, true));
  TextStream with(tokenizer_, {{}, {ids.back()}, true, true});
  EXPECT_EQ(run(with, ids), "Some years");
}

TEST_F(TextStreamTest, LeavesOutSpecialTokensUnlessTheyAreWanted) {
  auto ids = encode("Some");
  ids.push_back(kEos);
  TextStream without(tokenizer_, {});
  EXPECT_EQ(run(without, ids), "Some");
  TextStream with(tokenizer_, {{}, {}, false, false});
  EXPECT_EQ(run(with, ids), "Some<|im_end|>");
}

TEST_F(TextStreamTest, NeverGivesHalfACharacter) {
  const auto ids = encode("–");
  ASSERT_GT(ids.size(), 1u) << "the example's vocabulary has a token for the dash";
  TextStream stream(tokenizer_, {});
  EXPECT_EQ(stream.push(ids[0]), "");
  EXPECT_EQ(stream.flush(), "\uFFFD");
}

}  // namespace
}  // namespace lorikeet::actors
