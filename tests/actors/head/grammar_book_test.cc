#include "actors/head/grammar_book.h"

#include <gmock/gmock.h>

namespace lorikeet::actors {
namespace {

using engine::SequenceId;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class GrammarBookTest : public ::testing::Test {
 protected:
  GrammarBookTest() { book_.group_serves(); }

  // The digest of what request `id` wants.
  std::string claim(uint64_t id, const std::string& text, int32_t kind = 1) {
    engine::AnswerRules rules;
    rules.grammar_kind = kind;
    rules.grammar = text;
    book_.claim(SequenceId(id), rules);
    return rules.grammar;
  }

  std::vector<std::string> orders() {
    std::vector<std::string> said;
    for (const GroupOrder& order : book_.take_orders(now_)) {
      if (const auto* text = std::get_if<GrammarText>(&order)) said.push_back("send " + text->text);
      if (const auto* drop = std::get_if<GrammarDrop>(&order)) said.push_back("drop " + drop->digest);
    }
    return said;
  }

  void compile(const std::string& digest, uint64_t bytes) {
    for (const int32_t rank : {0, 1}) ASSERT_TRUE(book_.answered(rank, {digest, bytes, ""}, now_));
  }

  // Sends and compiles what request `id` wants, which has room.
  std::string bring(uint64_t id, const std::string& text, uint64_t bytes) {
    const std::string digest = claim(id, text);
    EXPECT_FALSE(book_.ready(SequenceId(id)));
    orders();
    compile(digest, bytes);
    EXPECT_TRUE(book_.ready(SequenceId(id)));
    return digest;
  }

  GrammarBook book_{2, 1000};
  GrammarBook::TimePoint now_;
};

TEST_F(GrammarBookTest, TellsGrammarsApartByLanguageAndText) {
  const std::string digest = claim(1, "a+");
  EXPECT_EQ(digest.size(), 32u);
  EXPECT_EQ(claim(2, "a+"), digest);
  EXPECT_NE(claim(3, "a+", 2), digest);
  EXPECT_NE(claim(4, "b+"), digest);
  EXPECT_TRUE(book_.ready(SequenceId(5))) << "a request without a grammar waits for none";
}

TEST_F(GrammarBookTest, SendsToAGroupOnce) {
  const std::string digest = claim(1, "a+");
  claim(2, "a+");
  EXPECT_FALSE(book_.ready(SequenceId(1)));
  EXPECT_FALSE(book_.ready(SequenceId(2)));
  EXPECT_THAT(orders(), ElementsAre("send a+"));
  EXPECT_TRUE(book_.waits_since());
  ASSERT_TRUE(book_.answered(1, {digest, 5, ""}, now_));
  EXPECT_FALSE(book_.answered(1, {digest, 5, ""}, now_)) << "twice";
  EXPECT_THAT(book_.take_outcomes(), IsEmpty());
  ASSERT_TRUE(book_.answered(0, {digest, 5, ""}, now_));
  EXPECT_EQ(book_.take_outcomes().size(), 2u);
  EXPECT_FALSE(book_.waits_since());
  EXPECT_FALSE(book_.answered(0, {digest, 5, ""}, now_)) << "of what nobody asks";
  book_.release(SequenceId(1));
  book_.release(SequenceId(2));
  claim(3, "a+");
  EXPECT_TRUE(book_.ready(SequenceId(3)));
  EXPECT_THAT(orders(), IsEmpty());
}

TEST_F(GrammarBookTest, DropsWhatIsIdleLongestWhereOthersNeedTheRoom) {
  const std::string first = bring(1, "a", 400), second = bring(2, "b", 400);
  bring(3, "c", 400);
  book_.release(SequenceId(2));
  book_.release(SequenceId(1));
  claim(4, "d");
  EXPECT_FALSE(book_.ready(SequenceId(4)));
  EXPECT_THAT(orders(), ElementsAre("drop " + second, "send d"));
  claim(5, "b");
  EXPECT_FALSE(book_.ready(SequenceId(5))) << "it is not there any more";
}

TEST_F(GrammarBookTest, KeepsAGrammarBackUntilThereIsRoom) {
  const std::string first = bring(1, "a", 2000);
  claim(2, "b");
  EXPECT_FALSE(book_.ready(SequenceId(2)));
  EXPECT_THAT(orders(), IsEmpty());
  book_.release(SequenceId(1));
  EXPECT_THAT(orders(), ElementsAre("drop " + first, "send b"));
}

TEST_F(GrammarBookTest, HasAFewOnTheWayAtOnce) {
  std::vector<std::string> digests;
  for (uint64_t id = 1; id <= 20; ++id) {
    digests.push_back(claim(id, std::to_string(id)));
    EXPECT_FALSE(book_.ready(SequenceId(id)));
  }
  EXPECT_EQ(orders().size(), 16u);
  book_.release(SequenceId(17));  // before its turn
  compile(digests[0], 1);
  compile(digests[1], 1);
  EXPECT_THAT(orders(), ElementsAre("send 18", "send 19"));
}

TEST_F(GrammarBookTest, SendsTheNextGroupWhatItsPlansName) {
  const std::string used = bring(1, "a", 10);
  bring(2, "b", 10);
  book_.release(SequenceId(2));
  claim(3, "c");
  EXPECT_FALSE(book_.ready(SequenceId(3)));
  book_.group_lost();
  EXPECT_THAT(orders(), IsEmpty());
  EXPECT_FALSE(book_.ready(SequenceId(1)));
  book_.group_serves();
  book_.require(used);
  book_.require(used);
  EXPECT_THAT(orders(), ElementsAre("send a"));
  compile(used, 10);
  EXPECT_EQ(book_.take_outcomes().size(), 1u);
}

TEST_F(GrammarBookTest, ForgetsAGrammarWhoseRequestsAreGone) {
  const std::string digest = claim(1, "a");
  EXPECT_FALSE(book_.ready(SequenceId(1)));
  EXPECT_THAT(orders(), ElementsAre("send a"));
  book_.release(SequenceId(1));
  book_.release(SequenceId(1));
  compile(digest, 10);  // it is idle now
  claim(2, "a");
  EXPECT_TRUE(book_.ready(SequenceId(2)));
  claim(3, "b");
  EXPECT_FALSE(book_.ready(SequenceId(3)));
  book_.release(SequenceId(3));
  EXPECT_THAT(orders(), IsEmpty()) << "before it was sent";
}

TEST_F(GrammarBookTest, GivesUpAGrammarAtWhichGroupsAreLostAndNoOther) {
  claim(1, "a+");
  claim(2, "b+");
  for (int loss = 0; loss < 3; ++loss) {
    EXPECT_FALSE(book_.why_given_up(SequenceId(1)));
    EXPECT_FALSE(book_.ready(SequenceId(1)));
    EXPECT_FALSE(book_.ready(SequenceId(2)));
    EXPECT_THAT(orders(), ElementsAre("send a+", "send b+"));
    book_.group_lost();
    book_.group_serves();
  }
  EXPECT_EQ(book_.why_given_up(SequenceId(1)), "the ranks were lost 3 times while they compiled its grammar");
  EXPECT_FALSE(book_.why_given_up(SequenceId(2)));
  EXPECT_FALSE(book_.why_given_up(SequenceId(3))) << "has none";
}

}  // namespace
}  // namespace lorikeet::actors
