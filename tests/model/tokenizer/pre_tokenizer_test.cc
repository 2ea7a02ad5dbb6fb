#include "model/tokenizer/pre_tokenizer.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace lorikeet::model {
namespace {

using Pieces = std::vector<std::string>;

Pieces cut(const std::string& text) {
  const PreTokenizer pre_tokenizer;
  PieceMatcher matcher = pre_tokenizer.matcher();
  Pieces pieces;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = matcher.end_of_piece(text, begin);
    pieces.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return pieces;
}

TEST(PreTokenizer, CutsAsQwensExpressionSays) {
  EXPECT_EQ(cut("I'm sure they'LL've"), (Pieces{"I", "'m", " sure", " they", "'LL", "'ve"}));
  EXPECT_EQ(cut("it'\u017Fx 'tis"), (Pieces{"it", "'\u017F", "x", " '", "tis"}));  // long s is an s, whatever its case
  EXPECT_EQ(cut("in 2026, x=1"), (Pieces{"in", " ", "2", "0", "2", "6", ",", " x", "=", "1"}));
  EXPECT_EQ(cut("a!?\n\nb .\r\n"), (Pieces{"a", "!?\n\n", "b", " .\r\n"}));
  EXPECT_EQ(cut("a   b\t\tc  "), (Pieces{"a", "  ", " b", "\t", "\tc", "  "}));
  EXPECT_EQ(cut("  \n \n  x"), (Pieces{"  \n \n", " ", " x"}));
  EXPECT_EQ(cut("(word)_x"), (Pieces{"(word", ")_", "x"}));
  EXPECT_EQ(cut("e\u0301t\u00E9 \u4F60\u597D"),
            (Pieces{"e", "\u0301t\u00E9", " \u4F60\u597D"}));  // marks are no letters
  EXPECT_EQ(cut("\u0663\u216B\u00BD"), (Pieces{"\u0663", "\u216B", "\u00BD"}));
}

TEST(PreTokenizer, TakesUnicodesWhiteSpaceAndNoMore) {
  EXPECT_EQ(cut("\u00A0\u2003\u3000"), (Pieces{"\u00A0\u2003\u3000"}));
  EXPECT_EQ(cut("\u0085\u2028 a"), (Pieces{"\u0085\u2028", " a"}));
  for (const char* no_space : {"\u180E", "\u200B", "\x1C", "\x1F"}) {
    EXPECT_EQ(cut(std::string(" ") + no_space), Pieces{std::string(" ") + no_space}) << no_space;
  }
}

TEST(PreTokenizer, TilesHugeRuns) {
  for (const char* unit : {" ", "a", "\n", "!", "\u0301", "\u3000", " \n"}) {
    std::string text;
    while (text.size() < (4 << 20)) text += unit;
    std::string joined;
    for (const std::string& piece : cut(text + "z")) {
      ASSERT_FALSE(piece.empty());
      joined += piece;
    }
    EXPECT_EQ(joined, text + "z");
  }
}

TEST(PreTokenizer, DoesNotFallBackOnALongRun) {
  // One piece, not the rest of the text given up.
  const std::string run(8 << 20, 'a');
  EXPECT_EQ(cut(run + " b").size(), 2u);
  EXPECT_EQ(cut(std::string(8 << 20, ' ') + "\nb").size(), 2u);
  EXPECT_EQ(cut(std::string(8 << 20, ' ') + "b").size(), 2u);
}

}  // namespace
}  // namespace lorikeet::model
