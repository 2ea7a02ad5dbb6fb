#include "model/tokenizer/bpe.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace lorikeet::model {
namespace {

using Ids = std::vector<int32_t>;

// A vocabulary of all bytes and random merges over the letters a to d, and the definition of BPE beside it.
struct Random {
  std::shared_ptr<Vocabulary> vocabulary = std::make_shared<Vocabulary>();
  std::vector<Merge> merges;

  explicit Random(unsigned seed, int count) {
    std::mt19937 random(seed);
    for (int32_t byte = 0; byte < 256; ++byte) {
      const char character = static_cast<char>(byte);
      EXPECT_TRUE(vocabulary->add(byte, std::string_view(&character, 1)));
    }
    Ids usable = {'a', 'b', 'c', 'd'};
    while (static_cast<int>(merges.size()) < count) {
      const int32_t left = usable[random() % usable.size()], right = usable[random() % usable.size()];
      const std::string both = std::string(vocabulary->bytes_of(left)) + std::string(vocabulary->bytes_of(right));
      if (both.size() > 12) continue;
      int32_t merged = vocabulary->find(both);
      if (merged < 0) {
        merged = vocabulary->size();
        EXPECT_TRUE(vocabulary->add(merged, both));
        usable.push_back(merged);
      }
      bool known = false;
      for (const Merge& merge : merges) known = known || (merge.left == left && merge.right == right);
      if (!known) merges.push_back({left, right, merged, static_cast<int32_t>(merges.size())});
    }
  }

  Ids by_definition(std::string_view piece) const {
    Ids ids;
    for (const char byte : piece) ids.push_back(static_cast<unsigned char>(byte));
    while (true) {
      const Merge* best = nullptr;
      size_t at = 0;
      for (size_t i = 0; i + 1 < ids.size(); ++i) {
        for (const Merge& merge : merges) {
          if (merge.left == ids[i] && merge.right == ids[i + 1] && (!best || merge.rank < best->rank)) {
            best = &merge;
            at = i;
          }
        }
      }
      if (!best) return ids;
      ids[at] = best->merged;
      ids.erase(ids.begin() + static_cast<ptrdiff_t>(at) + 1);
    }
  }
};

std::string random_piece(std::mt19937& random, size_t length) {
  std::string piece;
  for (size_t i = 0; i < length; ++i) piece += "abcdabcdabcdx\xE6"[random() % 14];
  return piece;
}

// Lengths on both sides of what is cached and of what is merged by scanning; each piece twice, so that the cache
// answers.
TEST(Bpe, MergesByDefinition) {
  std::mt19937 random(5);
  for (unsigned seed = 0; seed < 20; ++seed) {
    const Random made(seed, 40);
    const auto bpe = Bpe::create(made.vocabulary, made.merges, false);
    ASSERT_TRUE(bpe) << bpe.error().message;
    BpeScratch scratch;
    for (const size_t length : {1, 2, 3, 7, 15, 29, 30, 31, 63, 64, 65, 66, 150}) {
      const std::string piece = random_piece(random, length);
      const Ids expected = made.by_definition(piece);
      for (int time = 0; time < 2; ++time) {
        Ids ids = {-7};  // what is there already stays
        bpe->encode(piece, &scratch, &ids);
        ASSERT_EQ(ids.front(), -7);
        ids.erase(ids.begin());
        ASSERT_EQ(ids, expected) << piece;
      }
    }
  }
}

TEST(Bpe, KeepsPiecesApartThatShareALineOfTheCache) {
  const Random made(1, 40);
  const auto bpe = Bpe::create(made.vocabulary, made.merges, false);
  BpeScratch scratch;
  std::mt19937 random(6);
  for (int round = 0; round < 100000; ++round) {  // more pieces than lines
    const std::string piece = random_piece(random, 2 + random() % 8);
    Ids ids;
    bpe->encode(piece, &scratch, &ids);
    std::string text;
    for (const int32_t id : ids) text += made.vocabulary->bytes_of(id);
    ASSERT_EQ(text, piece);
  }
}

struct Small {
  std::shared_ptr<Vocabulary> vocabulary = std::make_shared<Vocabulary>();
  explicit Small(const std::vector<std::string>& tokens) {
    for (const std::string& token : tokens) EXPECT_TRUE(vocabulary->add(vocabulary->size(), token));
  }
};

Ids encoded(const Bpe& bpe, const std::string& piece) {
  BpeScratch scratch;
  Ids ids;
  bpe.encode(piece, &scratch, &ids);
  return ids;
}

TEST(Bpe, TakesAWholePieceFirstOnlyWhereAsked) {
  const Small small({"a", "b", "c", "ab", "abc"});
  const std::vector<Merge> merges = {{0, 1, 3, 0}};  // "abc" is a token that merging never reaches
  EXPECT_EQ(encoded(*Bpe::create(small.vocabulary, merges, false), "abc"), (Ids{3, 2}));
  EXPECT_EQ(encoded(*Bpe::create(small.vocabulary, merges, true), "abc"), (Ids{4}));
}

TEST(Bpe, LeavesOutBytesWithoutAToken) {
  const Small small({"a", "b", "ab"});
  const auto bpe = Bpe::create(small.vocabulary, {{0, 1, 2, 0}}, false);
  EXPECT_EQ(encoded(*bpe, "z"), Ids());
  EXPECT_EQ(encoded(*bpe, "azb"), (Ids{2}));
  EXPECT_EQ(encoded(*bpe, std::string(100, 'z') + "a" + std::string(100, 'z') + "b"), (Ids{2}));
  EXPECT_EQ(encoded(*bpe, std::string(100, 'z')), Ids());
}

TEST(Bpe, TakesTheLastOfMergesWithTheSamePair) {
  const Small small({"a", "b", "ab", "c", "bc"});
  const auto bpe = Bpe::create(small.vocabulary, {{0, 1, 2, 0}, {1, 3, 4, 1}, {0, 1, 2, 2}}, false);
  EXPECT_EQ(encoded(*bpe, "abc"), (Ids{0, 4}));
}

TEST(Bpe, RefusesMergesOfUnknownIds) {
  const Small small({"a", "b", "ab"});
  EXPECT_EQ(Bpe::create(small.vocabulary, {{0, 9, 2, 0}}, false).error().message,
            "a merge names id 9, which is no token");
  EXPECT_FALSE(Bpe::create(small.vocabulary, {{0, 1, -1, 0}}, false));
}

TEST(Vocabulary, FindsTokensByBytesAndById) {
  Vocabulary vocabulary;
  EXPECT_EQ(vocabulary.find("a"), -1);
  for (int32_t id = 0; id < 5000; ++id) ASSERT_TRUE(vocabulary.add(2 * id, std::to_string(id)));
  for (int32_t id = 0; id < 5000; ++id) {
    ASSERT_EQ(vocabulary.find(std::to_string(id)), 2 * id);
    ASSERT_EQ(vocabulary.bytes_of(2 * id), std::to_string(id));
    ASSERT_EQ(vocabulary.bytes_of(2 * id + 1), "");
  }
  EXPECT_EQ(vocabulary.find("5000"), -1);
  EXPECT_EQ(vocabulary.size(), 9999);
}

TEST(Vocabulary, RefusesDoublesEmptyTokensAndAbsurdIds) {
  Vocabulary vocabulary;
  ASSERT_TRUE(vocabulary.add(3, "a"));
  EXPECT_EQ(vocabulary.add(3, "b").error().message, "two tokens have id 3");
  EXPECT_EQ(vocabulary.add(4, "a").error().message, "tokens 3 and 4 are the same");
  EXPECT_EQ(vocabulary.add(5, "").error().message, "token 5 is empty");
  EXPECT_FALSE(vocabulary.add(-1, "c"));
  EXPECT_FALSE(vocabulary.add(Vocabulary::kMaxId + 1, "c"));
  EXPECT_EQ(vocabulary.size(), 4);
}

}  // namespace
}  // namespace lorikeet::model
