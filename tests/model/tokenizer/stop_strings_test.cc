#include "model/tokenizer/stop_strings.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace lorikeet::model {
namespace {

struct Outcome {
  std::string text;
  std::optional<size_t> matched;
  bool operator==(const Outcome&) const = default;
};

// Feeds the pieces, as a stream would come.
Outcome run(const std::vector<std::string>& stops, const std::vector<std::string>& pieces, bool include = false) {
  StopStringMatcher matcher(stops, include);
  Outcome outcome;
  for (const std::string& piece : pieces) outcome.text += matcher.push(piece);
  outcome.text += matcher.flush();
  outcome.matched = matcher.matched();
  return outcome;
}

// By definition: the match that ends first, of those the first listed.
Outcome reference(const std::vector<std::string>& stops, const std::string& text, bool include) {
  for (size_t end = 1; end <= text.size(); ++end) {
    const std::string_view head = std::string_view(text).substr(0, end);
    for (size_t i = 0; i < stops.size(); ++i) {
      if (!stops[i].empty() && head.ends_with(stops[i])) {
        return {text.substr(0, include ? end : end - stops[i].size()), i};
      }
    }
  }
  return {text, std::nullopt};
}

TEST(StopStrings, EndTheTextAcrossTheBordersOfPieces) {
  EXPECT_EQ(run({"END"}, {"abE", "N", "Dxyz", "more"}), (Outcome{"ab", 0}));
  EXPECT_EQ(run({"END"}, {"abE", "N", "Dxyz", "more"}, true), (Outcome{"abEND", 0}));
  EXPECT_EQ(run({"END"}, {"abEN"}), (Outcome{"abEN", std::nullopt}));
}

TEST(StopStrings, HoldBackNoMoreThanWhatMayStillBecomeOne) {
  StopStringMatcher matcher({"\n\nUser:"}, false);
  EXPECT_EQ(matcher.push("Hello.\n"), "Hello.");
  EXPECT_EQ(matcher.push("\nUse"), "");
  EXPECT_EQ(matcher.push("d"), "\n\nUsed");
  EXPECT_EQ(matcher.push("\n\n\n"), "\n");
  EXPECT_EQ(matcher.flush(), "\n\n");
}

TEST(StopStrings, FindAMatchThatBeginsInsideAFailedOne) {
  EXPECT_EQ(run({"aab"}, {"a", "a", "a", "b"}), (Outcome{"a", 0}));
  EXPECT_EQ(run({"abcabd"}, {"abcabcabd!"}), (Outcome{"abc", 0}));
}

TEST(StopStrings, PreferTheOneThatEndsFirstThenTheOneListedFirst) {
  EXPECT_EQ(run({"abcd", "bc"}, {"abcd"}), (Outcome{"a", 1}));
  EXPECT_EQ(run({"bc", "abc"}, {"abc"}), (Outcome{"a", 0}));
  EXPECT_EQ(run({"abc", "bc"}, {"abc"}), (Outcome{"", 0}));
}

TEST(StopStrings, GiveNothingAfterAMatch) {
  StopStringMatcher matcher({"x"}, false);
  EXPECT_EQ(matcher.push("ax"), "a");
  EXPECT_EQ(matcher.matched_string(), "x");
  EXPECT_EQ(matcher.push("bx"), "");
  EXPECT_EQ(matcher.flush(), "");
}

TEST(StopStrings, PassEverythingThroughWhenThereAreNone) {
  EXPECT_EQ(run({}, {"a", "b"}), (Outcome{"ab", std::nullopt}));
  StopStringMatcher matcher({""}, false);
  EXPECT_EQ(matcher.push("abc"), "abc");
  EXPECT_FALSE(matcher.matched());
}

TEST(StopStrings, NeverCutACharacter) {
  StopStringMatcher matcher({"é!"}, false);  // C3 A9 21
  EXPECT_EQ(matcher.push("aé"), "a");
  EXPECT_EQ(matcher.push("ê"), "éê");  // C3 AA begins like é
}

TEST(StopStrings, AgreeWithTheDefinitionForRandomTextsHoweverTheyAreCut) {
  std::mt19937 random(7);
  auto text_of = [&](size_t length) {
    std::string text;
    for (size_t i = 0; i < length; ++i) text += "ab"[random() % 2];
    return text;
  };
  int found = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops;
    for (size_t i = 0; i < 1 + random() % 3; ++i) stops.push_back(text_of(1 + random() % 8));
    const size_t longest = std::max_element(stops.begin(), stops.end(), [](const auto& a, const auto& b) {
                             return a.size() < b.size();
                           })->size();
    const std::string text = text_of(random() % 60);
    const bool include = random() % 2;
    const Outcome expected = reference(stops, text, include);
    StopStringMatcher matcher(stops, include);
    std::string out;
    for (size_t begin = 0; begin < text.size();) {
      const size_t length = 1 + random() % 9;
      out += matcher.push(std::string_view(text).substr(begin, length));
      begin += length;
      if (matcher.matched()) continue;
      const size_t held = std::min(begin, text.size()) - out.size();
      ASSERT_LT(held, longest);
    }
    out += matcher.flush();
    ASSERT_EQ((Outcome{out, matcher.matched()}), expected) << text;
    found += expected.matched.has_value();
  }
  EXPECT_GT(found, 500);
}

}  // namespace
}  // namespace lorikeet::model
