#include "model/tokenizer/tokenizer_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "tests/model/tokenizer/tokenizer_fixtures.h"

namespace lorikeet::model::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using Ids = std::vector<int32_t>;

// A small tokenizer.json that is served.
json served() {
  json file = json::parse(R"({
    "version": "1.0", "truncation": {"max_length": 5}, "padding": null,
    "added_tokens": [{"id": 4, "content": "<|im_end|>", "single_word": false, "lstrip": false, "rstrip": false,
                      "normalized": false, "special": true}],
    "normalizer": {"type": "NFC"},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": ""}, "behavior": "Isolated", "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}]},
    "post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
    "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
              "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false,
              "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3}, "merges": ["a b"]}})");
  file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  return file;
}

std::string error_of(const json& file) {
  const auto files = parse_tokenizer_json(file.dump());
  return files ? "none" : files.error().message;
}

TEST(TokenizerFiles, ReadsTokenizerJson) {
  const auto files = parse_tokenizer_json(served().dump());
  ASSERT_TRUE(files) << files.error().message;
  EXPECT_TRUE(files->nfc);
  EXPECT_FALSE(files->whole_piece_first);
  EXPECT_EQ(files->vocabulary->find(" "), 2);
  ASSERT_EQ(files->merges.size(), 1u);
  EXPECT_EQ(files->merges[0].merged, 3);
  ASSERT_EQ(files->added_tokens.size(), 1u);
  EXPECT_TRUE(files->added_tokens[0].special);
}

TEST(TokenizerFiles, TakesMergesAsPairsAndFilesWithoutOptionalParts) {
  json file = served();
  file["model"]["merges"] = json::parse(R"([["a", "b"]])");
  file["model"]["ignore_merges"] = true;
  file["model"].erase("type");
  file.erase("added_tokens");
  file.erase("post_processor");
  file["normalizer"] = nullptr;
  file["decoder"] = {{"type", "Sequence"}, {"decoders", json::array({file["decoder"]})}};
  const auto files = parse_tokenizer_json(file.dump());
  ASSERT_TRUE(files) << files.error().message;
  EXPECT_FALSE(files->nfc);
  EXPECT_TRUE(files->whole_piece_first);
  EXPECT_EQ(files->merges.size(), 1u);
}

TEST(TokenizerFiles, TakesRulesForUnknownBytesWhereEveryByteHasAToken) {
  json file = read_json(kTinyModel / "tokenizer.json");
  file["model"]["unk_token"] = "<|endoftext|>";
  file["model"]["byte_fallback"] = true;
  file["model"]["fuse_unk"] = true;
  EXPECT_EQ(error_of(file), "none");
  file["model"]["vocab"].erase("Ā");  // byte 0
  EXPECT_THAT(error_of(file), HasSubstr("model.unk_token is \"<|endoftext|>\"; only none is served"));
  file["model"]["unk_token"] = nullptr;
  EXPECT_THAT(error_of(file), HasSubstr("byte_fallback is on"));
}

TEST(TokenizerFiles, RefusesWhatIsNotImplementedWithASentence) {
  const std::pair<const char*, std::pair<const char*, const char*>> cases[] = {
      // JSON pointer, value put there, part of the sentence
      {"/normalizer", {R"({"type": "NFKC"})", "normalizer is \"NFKC\""}},
      {"/normalizer", {R"({"type": "Sequence", "normalizers": [{"type": "NFD"}]})", "normalizer is \"Sequence\""}},
      {"/pre_tokenizer", {R"({"type": "ByteLevel", "add_prefix_space": false})", "pre_tokenizer is \"ByteLevel\""}},
      {"/pre_tokenizer", {"null", "pre_tokenizer is null"}},
      {"/pre_tokenizer/pretokenizers/0/pattern", {R"({"Regex": "\\d+"})", "not Qwen's expression"}},
      {"/pre_tokenizer/pretokenizers/0/pattern", {R"({"String": " "})", "not Qwen's expression"}},
      {"/pre_tokenizer/pretokenizers/0/behavior", {R"("Removed")", "behavior \"Removed\""}},
      {"/pre_tokenizer/pretokenizers/0/invert", {"true", "invert true"}},
      {"/pre_tokenizer/pretokenizers/1/add_prefix_space", {"true", "add_prefix_space = true"}},
      {"/pre_tokenizer/pretokenizers/1/use_regex", {"null", "use_regex = null"}},
      {"/pre_tokenizer/pretokenizers/1/type", {R"("Digits")", "only a Sequence of Split"}},
      {"/post_processor", {R"({"type": "TemplateProcessing"})", "post_processor is \"TemplateProcessing\""}},
      {"/decoder", {R"({"type": "WordPiece"})", "decoder is \"WordPiece\""}},
      {"/decoder", {"null", "decoder is null"}},
      {"/decoder",
       {R"({"type": "Sequence", "decoders": [{"type": "ByteLevel"}, {"type": "Strip"}]})", "decoder is \"Sequence\""}},
      {"/model", {"null", "there is no model"}},
      {"/model/type", {R"("Unigram")", "model is \"Unigram\""}},
      {"/model/dropout", {"0.1", "dropout is 0.1"}},
      {"/model/unk_token", {R"("<unk>")", "unk_token is \"<unk>\""}},
      {"/model/continuing_subword_prefix", {R"("##")", "continuing_subword_prefix"}},
      {"/model/end_of_word_suffix", {R"("</w>")", "end_of_word_suffix"}},
      {"/model/byte_fallback", {"true", "byte_fallback is on"}},
      {"/model/ignore_merges", {"1", "ignore_merges is 1"}},
  };
  for (const auto& [pointer, change] : cases) {
    json file = served();
    file[json::json_pointer(pointer)] = json::parse(change.first);
    EXPECT_THAT(error_of(file), HasSubstr(change.second)) << pointer;
  }
}

TEST(TokenizerFiles, RefusesMalformedVocabulariesAndMerges) {
  const std::pair<const char*, std::pair<const char*, const char*>> cases[] = {
      {"/model/vocab", {"[]", "model.vocab is not an object"}},
      {"/model/vocab", {R"({"a": -1})", "wrong type"}},
      {"/model/vocab", {R"({"a": 1.5})", "wrong type"}},
      {"/model/vocab", {R"({"a": "1"})", "wrong type"}},
      {"/model/vocab", {R"({"a": {}})", "wrong type"}},
      {"/model/vocab", {R"({"a": 4194304})", "has id 4194304, over"}},
      {"/model/vocab", {R"({"a": 0, "b": 0})", "two tokens have id 0"}},
      {"/model/vocab", {R"({"": 0})", "token 0 is empty"}},
      {"/model/vocab", {R"({"a": 0, "b": 1, "ab": 3, "x y": 7})", "the token \"x y\" (id 7) is not spelt"}},
      {"/model/merges", {"{}", "model.merges is not an array"}},
      {"/model/merges", {"[1]", "wrong type"}},
      {"/model/merges", {R"(["ab"])", "the merge \"ab\" is not two tokens"}},
      {"/model/merges", {R"(["a b a"])", "is not two tokens"}},
      {"/model/merges", {R"([["a"]])", "a merge of less than two parts"}},
      {"/model/merges", {R"([["a", "b", "a"]])", "a merge of more than two parts"}},
      {"/model/merges", {R"([[["a"]]])", "wrong type"}},
      {"/model/merges", {R"(["b a"])", "merge 0 (\"b a\")"}},
      {"/model/merges", {R"(["a z"])", "merge 0 (\"a z\")"}},
  };
  for (const auto& [pointer, change] : cases) {
    json file = served();
    file[json::json_pointer(pointer)] = json::parse(change.first);
    EXPECT_THAT(error_of(file), HasSubstr(change.second)) << change.first;
  }
}

TEST(TokenizerFiles, RefusesMalformedAddedTokens) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({})", "added_tokens is an object, not an array"},
      {R"([3])", "its id is null"},
      {R"([{"id": -1, "content": "x"}])", "its id is -1"},
      {R"([{"id": 9223372036854775808, "content": "x"}])", "is outside 0.."},
      {R"([{"id": 9, "content": 7}])", "content is 7, not a string"},
      {R"([{"id": 9, "content": ""}])", "content has 0 bytes"},
      {R"([{"id": 9, "content": "x", "lstrip": 1}])", "lstrip is 1, not a boolean"},
      {R"([{"id": 9, "content": "x"}, {"id": 9, "content": "y"}])", "two added tokens have id 9"},
      {R"([{"id": 9, "content": "x"}, {"id": 8, "content": "x"}])", "\"x\" has two ids"},
      {R"([{"id": 3, "content": "x"}])", "has the id 3 of another token"},
  };
  for (const auto& [added, sentence] : cases) {
    json file = served();
    file["added_tokens"] = json::parse(added);
    EXPECT_THAT(error_of(file), HasSubstr(sentence)) << added;
  }
  json file = served();
  file["added_tokens"][0]["content"] = std::string(5000, 'x');
  EXPECT_THAT(error_of(file), HasSubstr("5000 bytes"));
}

TEST(TokenizerFiles, LetsAnAddedTokenStandInTheVocabularyInItsOwnLetters) {
  json file = served();
  file["model"]["vocab"]["two words"] = 5;
  file["added_tokens"].push_back({{"id", 5}, {"content", "two words"}, {"special", false}});
  file["added_tokens"].push_back({{"id", 3}, {"content", "ab"}, {"special", false}});
  const auto files = parse_tokenizer_json(file.dump());
  ASSERT_TRUE(files) << files.error().message;
  EXPECT_EQ(files->vocabulary->find("two words"), -1);
  EXPECT_EQ(files->vocabulary->find("ab"), 3);
}

TEST(TokenizerFiles, RefusesHostileJson) {
  for (const char* text : {"", "[", "null", "[]", "{\"model\": ", "{\"a\": \"\xFF\"}", "{} {}"}) {
    EXPECT_FALSE(parse_tokenizer_json(text)) << text;
  }
  EXPECT_THAT(parse_tokenizer_json(std::string(100000, '[')).error().message, HasSubstr("nested deeper"));
  EXPECT_THAT(parse_tokenizer_json(R"({"a": 1, "a": 2})").error().message, HasSubstr("\"a\" occurs twice"));
  EXPECT_THAT(parse_tokenizer_json(R"({"model": {"vocab": {"a": 0}, "vocab": {"b": 1}}})").error().message,
              HasSubstr("\"vocab\" occurs twice"));
  EXPECT_THAT(parse_tokenizer_json(R"({"model": {"vocab": {"a": 0, "a": 0}, "merges": []}})").error().message,
              ::testing::Not(HasSubstr("none")));
}

TEST(TokenizerFiles, ReadsVocabAndMerges) {
  const auto files = parse_vocab_and_merges(R"({"a": 0, "b": 1, "ab": 2})", "#version: 0.2\r\na b\r\n\n");
  ASSERT_TRUE(files) << files.error().message;
  EXPECT_EQ(files->merges.size(), 1u);
  EXPECT_TRUE(files->nfc);
  EXPECT_THAT(parse_vocab_and_merges("{}", "a").error().message, HasSubstr("merges.txt: line 1"));
  EXPECT_THAT(parse_vocab_and_merges("[]", "").error().message, HasSubstr("vocab.json"));
  EXPECT_THAT(parse_vocab_and_merges("{", "").error().message, HasSubstr("vocab.json: not valid JSON"));
  EXPECT_THAT(parse_vocab_and_merges(R"({"a": 0})", "\n#version b").error().message,
              HasSubstr("not in the vocabulary"));
}

TEST(TokenizerFiles, JoinsAddedTokensOfTokenizerConfig) {
  auto files = parse_tokenizer_json(served().dump());
  ASSERT_TRUE(files);
  const auto join = [&](const char* decoder) {
    auto copy = *files;
    const auto joined = join_added_tokens_decoder(std::string(R"({"added_tokens_decoder": )") + decoder + "}", &copy);
    return std::pair(joined ? "none" : joined.error().message, copy.added_tokens.size());
  };
  EXPECT_EQ(join("null"), std::pair(std::string("none"), size_t{1}));
  EXPECT_EQ(join(R"({"4": {"content": "<|im_end|>", "special": false}, "5": {"content": "<x>", "special": true}})"),
            std::pair(std::string("none"), size_t{2}));
  EXPECT_THAT(join(R"({"4": {"content": "<other>"}})").first, HasSubstr("but \"<|im_end|>\" in tokenizer.json"));
  EXPECT_THAT(join(R"({"x": {"content": "<x>"}})").first, HasSubstr("\"x\" is not a token id"));
  EXPECT_THAT(join(R"({"-2": {"content": "<x>"}})").first, HasSubstr("outside 0.."));
  EXPECT_THAT(join(R"({"6": {"content": "<|im_end|>"}})").first, HasSubstr("has two ids"));
  EXPECT_THAT(join("7").first, HasSubstr("not an object"));
  EXPECT_FALSE(join_added_tokens_decoder("[", &*files));
}

TEST(TokenizerFiles, RefusesOtherTokenizersThatHaveTheSameFiles) {
  tests::TempDir dir;
  dir.write("vocab.json", R"({"a": 0})");
  dir.write("merges.txt", "");
  for (const auto& [config, sentence] :
       {std::pair(R"({"tokenizer_class": "GPT2Tokenizer"})", "GPT2Tokenizer"),
        std::pair(R"({"add_prefix_space": true})", "add_prefix_space"), std::pair("{", "tokenizer_config.json")}) {
    dir.write("tokenizer_config.json", config);
    const auto files = read_tokenizer_files(dir.path());
    ASSERT_FALSE(files) << config;
    EXPECT_THAT(files.error().message, HasSubstr(sentence));
  }
}

// A file of 16 MiB may have so many brackets: whoever writes or copies what was parsed goes down into each of them.
TEST(TokenizerFiles, RefusesConfigurationsThatAreNestedDeeply) {
  const std::string deep = R"({"x": )" + std::string(1'000'000, '[') + std::string(1'000'000, ']') + "}";
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}) {
    tests::TempDir dir;
    dir.write("tokenizer.json", served().dump());
    dir.write(name, deep);
    const auto files = read_tokenizer_files(dir.path());
    ASSERT_FALSE(files) << name;
    EXPECT_THAT(files.error().message, HasSubstr(std::string(name) + ": nested deeper than 64 levels"));
  }
}

std::string base64(std::string_view bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t word = 0;
    const size_t count = std::min<size_t>(3, bytes.size() - i);
    for (size_t j = 0; j < 3; ++j) word = word << 8 | (j < count ? static_cast<unsigned char>(bytes[i + j]) : 0);
    for (size_t j = 0; j < 4; ++j) out += j <= count ? kDigits[word >> (18 - 6 * j) & 63] : '=';
  }
  return out;
}

// qwen.tiktoken as Qwen v1 ships it, with the tokens of another tokenizer.
std::string tiktoken_of(const Tokenizer& tokenizer, int32_t count) {
  std::string lines;
  for (int32_t id = 0; id < count; ++id) {
    lines += base64(tokenizer.bytes_of(id)) + ' ' + std::to_string(id) + '\n';
  }
  return lines;
}

TEST(Tiktoken, GivesTheIdsOfTheSameVocabulary) {
  const auto tiny = load_tokenizer(kTinyModel);
  tests::TempDir dir;
  dir.write("qwen.tiktoken", tiktoken_of(*tiny, 2045));
  const auto tokenizer = Tokenizer::load(dir.path());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const auto cases = read_json(kSource / "tests/data/tokenizer/vectors.json")["plain"];
  for (const auto& one : cases) {
    const auto text = one["text"].get<std::string>();
    EXPECT_EQ((*tokenizer)->encode(text, false), one["ids_unparsed"].get<Ids>()) << text;
  }
  EXPECT_EQ((*tokenizer)->encode("<|endoftext|><|im_start|><|im_end|><|extra_0|><|extra_204|>", true),
            (Ids{151643, 151644, 151645, 151646, 151850}));
  EXPECT_EQ((*tokenizer)->vocab_size(), 151851);
  EXPECT_TRUE((*tokenizer)->is_special(151850));
}

TEST(Tiktoken, AgreesWithQwensOwnNotes) {
  LORIKEET_SKIP_WITHOUT(kQwen2);
  tests::TempDir dir;
  dir.write("qwen.tiktoken", tiktoken_of(*load_tokenizer(kQwen2), 151643));
  const auto tokenizer = Tokenizer::load(dir.path());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const auto vectors = read_json(kQwen2 / "qwen_vectors.json");
  for (const auto& one : vectors["cases"]) {
    EXPECT_EQ((*tokenizer)->encode(one["text"].get<std::string>(), false), one["ids"].get<Ids>());
  }
  for (const auto& one : vectors["special_parsed"]) {
    EXPECT_EQ((*tokenizer)->encode(one["text"].get<std::string>(), true), one["ids"].get<Ids>());
  }
}

TEST(Tiktoken, RefusesMalformedLines) {
  const std::pair<const char*, const char*> cases[] = {
      {"YQ==\n", "line 1 is not a token"},
      {"YQ== x\n", "line 1 is not a token"},
      {"YQ== 0\nYQ= 1\n", "line 2 is not a token"},
      {"YQ== 0\n!!!! 1\n", "line 2 is not a token"},
      {" 0\n", "line 1 is not a token"},
      {"YQ== 0 0\n", "line 1 is not a token"},
      {"YQ== -1\n", "outside 0.."},
      {"YQ== 151643\n", "where the control tokens begin"},
      {"YQ== 0\nYg== 0\n", "two tokens have id 0"},
      {"YQ== 0\nYQ== 1\n", "are the same"},
      {"==== 0\n", "line 1 is not a token"},
      {"YQ== 99999999999\n", "line 1 is not a token"},
  };
  for (const auto& [lines, sentence] : cases) {
    const auto files = parse_tiktoken(lines);
    ASSERT_FALSE(files) << lines;
    EXPECT_THAT(files.error().message, HasSubstr(sentence)) << lines;
  }
}

}  // namespace
}  // namespace lorikeet::model::testing
