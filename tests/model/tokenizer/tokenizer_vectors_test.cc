// The tokenizer against ids that other implementations published.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "model/tokenizer/tokenizer.h"
#include "tests/model/tokenizer/tokenizer_fixtures.h"

namespace lorikeet::model::testing {
namespace {

using Ids = std::vector<int32_t>;

TEST(TokenizerVectors, AgreesWithHuggingFaceOnQwen2) {
  LORIKEET_SKIP_WITHOUT(kQwen2);
  const auto tokenizer = load_tokenizer(kQwen2);
  const auto cases = read_json(kQwen2 / "vectors.json");
  ASSERT_EQ(cases.size(), 100u);
  for (const auto& one : cases) {
    const auto text = one["text"].get<std::string>();
    const auto ids = one["ids"].get<Ids>();
    EXPECT_EQ(tokenizer->encode(text, true), ids) << text;
    EXPECT_EQ(tokenizer->decode(ids, false), one["decoded"].get<std::string>()) << text;
  }
}

TEST(TokenizerVectors, AgreesWithQwensOwnNotes) {
  LORIKEET_SKIP_WITHOUT(kQwen2);
  const auto tokenizer = load_tokenizer(kQwen2);
  const auto vectors = read_json(kQwen2 / "qwen_vectors.json");
  for (const auto& one : vectors["cases"]) {
    const auto text = one["text"].get<std::string>();
    EXPECT_EQ(tokenizer->encode(text, false), one["ids"].get<Ids>()) << text;
    EXPECT_EQ(tokenizer->decode(one["ids"].get<Ids>(), false), text);
  }
  for (const auto& one : vectors["special_parsed"]) {
    const auto text = one["text"].get<std::string>();
    EXPECT_EQ(tokenizer->encode(text, true), one["ids"].get<Ids>()) << text;
  }
  EXPECT_EQ(tokenizer->decode(vectors["partial_utf8"]["ids"].get<Ids>(), false), " 根");
  EXPECT_EQ(tokenizer->bytes_of(51461), "\x20\xE6\xA0");
}

TEST(TokenizerVectors, AgreesWithLlamaCppsCases) {
  LORIKEET_SKIP_WITHOUT(kQwen2);
  const auto tokenizer = load_tokenizer(kQwen2);
  const std::string separator = "\n__ggml_vocab_test__\n";
  std::string inputs = read_text(kQwen2 / "ggml-vocab-qwen2.gguf.inp");
  std::istringstream outputs(read_text(kQwen2 / "ggml-vocab-qwen2.gguf.out"));
  int cases = 0;
  for (std::string line; !inputs.empty(); ++cases) {
    const size_t end = inputs.find(separator);
    ASSERT_NE(end, std::string::npos);
    const std::string text = inputs.substr(0, end);
    inputs.erase(0, end + separator.size());
    ASSERT_TRUE(std::getline(outputs, line));
    std::istringstream numbers(line);
    const Ids expected((std::istream_iterator<int32_t>(numbers)), {});
    EXPECT_EQ(tokenizer->encode(text, false), expected) << text;
  }
  EXPECT_EQ(cases, 46);  // and the empty text after the last separator, which has no line of ids
  EXPECT_EQ(tokenizer->encode("", false), Ids());
}

TEST(TokenizerVectors, AgreesWithTorchtunesTinyVocabularyInBothFileLayouts) {
  const auto dir = kFixtures / "public/torchtune_tiny_bpe";
  LORIKEET_SKIP_WITHOUT(dir);
  const auto expected = read_json(dir / "expected.json");
  tests::TempDir whole, parts;
  std::filesystem::copy(dir / "tiny_bpe_tokenizer.json", whole.path() / "tokenizer.json");
  std::filesystem::copy(dir / "tiny_bpe_vocab.json", parts.path() / "vocab.json");
  std::filesystem::copy(dir / "tiny_bpe_merges.txt", parts.path() / "merges.txt");
  for (const auto& path : {whole.path(), parts.path()}) {
    auto tokenizer = Tokenizer::load(path);
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    for (const auto& one : expected["plain"]) {
      EXPECT_EQ((*tokenizer)->encode(one["text"].get<std::string>(), false), one["ids"].get<Ids>());
    }
  }
}

}  // namespace
}  // namespace lorikeet::model::testing
