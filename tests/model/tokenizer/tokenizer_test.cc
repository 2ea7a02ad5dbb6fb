#include "model/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/model/tokenizer/tokenizer_fixtures.h"

namespace lorikeet::model::testing {
namespace {

using Ids = std::vector<int32_t>;

std::shared_ptr<const Tokenizer> tiny() {
  return load_tokenizer(kTinyModel);
}

std::string nfc(const std::string& text) {
  utf8proc_uint8_t* mapped = utf8proc_NFC(reinterpret_cast<const utf8proc_uint8_t*>(text.c_str()));
  std::string normalized = reinterpret_cast<const char*>(mapped);
  std::free(mapped);
  return normalized;
}

void append_utf8(char32_t code_point, std::string* out) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), bytes);
  out->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
}

// Text that mixes what pre-tokenizers and normalisation care about; no NUL, which utf8proc_NFC ends at.
std::string random_text(std::mt19937& random) {
  const std::pair<char32_t, char32_t> ranges[] = {
      {0x20, 0x7E},     {0x09, 0x0D},     {0xA0, 0x24F},      {0x300, 0x36F}, {0x1100, 0x11FF},
      {0x4E00, 0x9FFF}, {0xAC00, 0xD7A3}, {0x1F300, 0x1F9FF}, {0x1, 0xD7FF},  {0xE000, 0x10FFFF}};
  std::string text;
  for (size_t i = random() % 40; i > 0; --i) {
    const auto& [first, last] = ranges[random() % std::size(ranges)];
    append_utf8(first + random() % (last - first + 1), &text);
    if (random() % 8 == 0) text += " the whale";
    if (random() % 16 == 0) text += "<|im_end|>";
  }
  return text;
}

TEST(Tokenizer, AgreesWithHuggingFace) {
  const auto cases = read_json(kSource / "tests/data/tokenizer/vectors.json")["plain"];
  ASSERT_GE(cases.size(), 70u);
  for (const auto& one : cases) {
    const auto text = one["text"].get<std::string>();
    EXPECT_EQ(tiny()->encode(text, true), one["ids"].get<Ids>()) << text;
    EXPECT_EQ(tiny()->encode(text, false), one["ids_unparsed"].get<Ids>()) << text;
    EXPECT_EQ(tiny()->decode(one["ids"].get<Ids>(), false), one["decoded"].get<std::string>());
  }
}

TEST(Tokenizer, HonoursTheFlagsOfAddedTokensAsHuggingFaceDoes) {
  const auto vectors = read_json(kSource / "tests/data/tokenizer/vectors.json");
  auto file = read_json(kTinyModel / "tokenizer.json");
  for (const auto& token : vectors["added_tokens"]) file["added_tokens"].push_back(token);
  tests::TempDir dir;
  dir.write("tokenizer.json", file.dump());
  const auto tokenizer = Tokenizer::load(dir.path());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  for (const auto& one : vectors["added"]) {
    const auto text = one["text"].get<std::string>();
    EXPECT_EQ((*tokenizer)->encode(text, true), one["ids"].get<Ids>()) << text;
    EXPECT_EQ((*tokenizer)->encode(text, false), one["ids_unparsed"].get<Ids>()) << text;
  }
}

// The ids are those of Hugging Face's tokenizers 0.23.
TEST(Tokenizer, FindsTokensInWhiteSpaceThatAnotherTookAlong) {
  auto file = read_json(kTinyModel / "tokenizer.json");
  const auto add = [&file](int id, const char* content, bool lstrip, bool rstrip) {
    file["added_tokens"].push_back(
        {{"id", id}, {"content", content}, {"lstrip", lstrip}, {"rstrip", rstrip}, {"normalized", false}});
  };
  add(2048, "<right>", false, true);
  add(2049, "\n", false, false);
  add(2050, "\t", false, true);
  add(2051, "\r", true, true);
  tests::TempDir dir;
  dir.write("tokenizer.json", file.dump());
  const auto tokenizer = Tokenizer::load(dir.path());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const auto ids = [&tokenizer](const char* text) { return (*tokenizer)->encode(text, true); };
  EXPECT_EQ(ids("a<right> b"), (Ids{64, 2048, 65}));
  EXPECT_EQ(ids("a<right> \n b"), (Ids{64, 2048, 2049, 268}));
  EXPECT_EQ(ids("a<right>\n\n  \nb"), (Ids{64, 2048, 2049, 2049, 638, 2049, 65}));
  EXPECT_EQ(ids("<right> \t \n\t  b"), (Ids{2048, 2050, 2049, 2050, 65}));
  EXPECT_EQ(ids("a\t \t\n b"), (Ids{64, 2050, 2050, 2049, 268}));
  EXPECT_EQ(ids("a \r\r b"), (Ids{64, 2051, 65}));
  EXPECT_EQ(ids("a<right> \r\n b"), (Ids{64, 2048, 2049, 268}));
  EXPECT_EQ(ids("a\r\n \r b"), (Ids{64, 2051, 2049, 2051, 65}));
}

TEST(Tokenizer, PutsAroundPromptsWhatHuggingFacesPostProcessorsDo) {
  const auto framed = read_json(kSource / "tests/data/tokenizer/vectors.json")["framed"];
  ASSERT_GE(framed.size(), 30u);
  auto file = read_json(kTinyModel / "tokenizer.json");
  for (const auto& one : framed) {
    file["post_processor"] = one["post_processor"];
    tests::TempDir dir;
    dir.write("tokenizer.json", file.dump());
    const auto tokenizer = Tokenizer::load(dir.path());
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    EXPECT_EQ((*tokenizer)->encode_prompt(one["text"].get<std::string>()), one["ids"].get<Ids>()) << one.dump();
  }
}

// A directory with the example model's tokenizer.json and these other files.
struct Variant {
  nlohmann::json config = nlohmann::json::object();
  nlohmann::json map = nullptr;                    // special_tokens_map.json
  nlohmann::json added = nullptr;                  // added_tokens.json
  std::function<void(nlohmann::json&)> edit = {};  // of tokenizer.json

  Result<std::shared_ptr<const Tokenizer>> load() const {
    tests::TempDir dir;
    auto file = read_json(kTinyModel / "tokenizer.json");
    if (edit) edit(file);
    dir.write("tokenizer.json", file.dump());
    if (!config.is_null()) dir.write("tokenizer_config.json", config.dump());
    if (!map.is_null()) dir.write("special_tokens_map.json", map.dump());
    if (!added.is_null()) dir.write("added_tokens.json", added.dump());
    return Tokenizer::load(dir.path());
  }
};

TEST(Tokenizer, KnowsTheEndTokenWhereverAFileNamesIt) {
  const nlohmann::json text = "<|im_end|>", object = {{"__type", "AddedToken"}, {"content", "<|im_end|>"}};
  for (const auto& token : {text, object}) {
    EXPECT_EQ((*Variant{{{"eos_token", token}}}.load())->eos_id(), 2047);
    EXPECT_EQ((*Variant{{}, {{"eos_token", token}}}.load())->eos_id(), 2047);
    EXPECT_EQ((*Variant{{{"eos_token", token}}, {{"eos_token", "<|im_start|>"}}}.load())->eos_id(), 2047);
  }
  EXPECT_EQ((*Variant{{{"eos_token", nullptr}}}.load())->eos_id(), -1);
  EXPECT_EQ((*Variant{{{"eos_token", "</s>"}}}.load())->eos_id(), -1) << "no such token";
  EXPECT_EQ((*Variant{{{"eos_token", "the"}}}.load())->eos_id(), tiny()->encode("the", true)[0])
      << "a token of the vocabulary";
}

TEST(Tokenizer, ObeysTheSwitchesForBeginAndEndTokens) {
  const nlohmann::json named = {{"bos_token", "<|im_start|>"}, {"eos_token", {{"content", "<|im_end|>"}}}};
  const Ids hi = tiny()->encode("hi", true);
  const auto framed = [&](bool begin, bool end) {
    Ids ids = hi;
    if (begin) ids.insert(ids.begin(), 2046);
    if (end) ids.push_back(2047);
    return ids;
  };
  const auto with_template = [](nlohmann::json& file) {
    file["post_processor"] = {
        {"type", "BertProcessing"}, {"cls", {"<|im_start|>", 2046}}, {"sep", {"<|im_end|>", 2047}}};
  };
  for (const bool begin : {false, true}) {
    for (const bool end : {false, true}) {
      auto config = named;
      config["add_bos_token"] = begin;
      config["add_eos_token"] = end;
      EXPECT_EQ((*Variant{config}.load())->encode_prompt("hi"), framed(begin, end));
      EXPECT_EQ((*Variant{config, {}, {}, with_template}.load())->encode_prompt("hi"), framed(begin, end));
      EXPECT_EQ((*Variant{config}.load())->encode("hi", true), hi) << "a chat template writes its own";
      config.erase("bos_token");
      EXPECT_EQ((*Variant{config}.load())->encode_prompt("hi"), framed(false, end)) << "no token has that name";
    }
  }
  EXPECT_EQ((*Variant{named, {}, {}, with_template}.load())->encode_prompt("hi"), framed(true, true));
}

TEST(Tokenizer, RefusesSettingsThatWouldChangeIdsByTheirNames) {
  for (const char* key : {"add_prefix_space", "split_special_tokens"}) {
    EXPECT_TRUE((Variant{{{key, false}}}.load()));
    EXPECT_TRUE((Variant{{{key, nullptr}}}.load()));
    for (const nlohmann::json& value : {nlohmann::json(true), nlohmann::json("yes")}) {
      const auto refused = Variant{{{key, value}}}.load();
      ASSERT_FALSE(refused) << key;
      EXPECT_THAT(refused.error().message, ::testing::HasSubstr(key));
    }
  }
  EXPECT_THAT((Variant{{{"add_bos_token", 1}}}.load()).error().message, ::testing::HasSubstr("add_bos_token is 1"));
  EXPECT_TRUE((Variant{{{"clean_up_tokenization_spaces", true}}}.load())) << "which transformers ignores for BPE";
}

TEST(Tokenizer, TakesTheTokensOfAddedTokensJsonWhereNoNewerFileLists) {
  const nlohmann::json added = {{"<think>", 2048}, {"<|end|>", 2049}, {"<|im_end|>", 2047}};
  const auto old = *Variant{{{"eos_token", "<|end|>"}}, {}, added}.load();
  EXPECT_EQ(old->encode("<think><|end|>", true), (Ids{2048, 2049}));
  EXPECT_TRUE(old->is_special(2049));
  EXPECT_FALSE(old->is_special(2048));
  const auto newer = *Variant{{{"added_tokens_decoder", nlohmann::json::object()}}, {}, added}.load();
  EXPECT_EQ(newer->id_of("<think>"), -1);
  const auto wrong = Variant{{}, {}, {{"<think>", "x"}}}.load();
  ASSERT_FALSE(wrong);
  EXPECT_THAT(wrong.error().message, ::testing::HasSubstr("added_tokens.json"));
}

TEST(Tokenizer, RefusesPostProcessorsThatItCannotCarryOut) {
  const nlohmann::json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const nlohmann::json other = {{"Sequence", {{"id", "B"}, {"type_id", 0}}}};
  const nlohmann::json token = {{"SpecialToken", {{"id", "x"}, {"type_id", 0}}}};
  const auto of = [](nlohmann::json single) {
    return nlohmann::json{{"type", "TemplateProcessing"}, {"single", std::move(single)}};
  };
  const nlohmann::json bert = {{"type", "BertProcessing"}, {"cls", {"a", 1}}, {"sep", {"b", 2}}};
  for (const nlohmann::json& processor :
       {nlohmann::json{{"type", "Sequence"}, {"processors", {bert, bert}}}, nlohmann::json{{"type", "Other"}},
        nlohmann::json{{"type", "Sequence"}}, nlohmann::json(7), of(nullptr), of({text, text}), of({other}),
        of({token, text}), nlohmann::json{{"type", "BertProcessing"}, {"cls", {"a", -1}}}}) {
    const auto refused = Variant{{}, {}, {}, [&](nlohmann::json& file) { file["post_processor"] = processor; }}.load();
    ASSERT_FALSE(refused) << processor.dump();
    EXPECT_THAT(refused.error().message, ::testing::HasSubstr("post_processor"));
  }
}

TEST(Tokenizer, ReadsBothFileLayoutsAlike) {
  tests::TempDir parts;
  for (const char* name : {"vocab.json", "merges.txt", "tokenizer_config.json"}) {
    std::filesystem::copy(kTinyModel / name, parts.path() / name);
  }
  const auto tokenizer = Tokenizer::load(parts.path());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ((*tokenizer)->vocab_size(), tiny()->vocab_size());
  const auto cases = read_json(kSource / "tests/data/tokenizer/vectors.json")["plain"];
  for (const auto& one : cases) {
    EXPECT_EQ((*tokenizer)->encode(one["text"].get<std::string>(), true), one["ids"].get<Ids>());
  }
}

TEST(Tokenizer, GivesThePromptsOfTheReferenceOutputs) {
  const auto cases = read_json(kSource / "tests/data/tiny-qwen2-gptq-int4.golden.json")["cases"];
  for (const auto& one : cases) {
    EXPECT_EQ(tiny()->encode(one["prompt"].get<std::string>(), true), one["prompt_ids"].get<Ids>());
    EXPECT_EQ(tiny()->decode(one["token_ids"].get<Ids>(), false), one["text"].get<std::string>());
  }
}

TEST(Tokenizer, KeepsDigitsApart) {
  const Ids ids = tiny()->encode("2026", false);
  ASSERT_EQ(ids.size(), 4u);
  EXPECT_EQ(ids[0], ids[2]);
}

TEST(Tokenizer, DecodesWhatItEncodedToItsNfc) {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    const std::string text = random_text(random);
    EXPECT_EQ(tiny()->decode(tiny()->encode(text, false), false), nfc(text)) << text;
  }
}

TEST(Tokenizer, TakesInvalidUtf8AsReplacementCharacters) {
  const std::pair<std::string, std::string> cases[] = {
      {"a\xFF"
       "b",
       "a\uFFFDb"},                                      // never a byte of UTF-8
      {"\xE6\xA0", "\uFFFD"},                            // a character cut short
      {"\xE6\xA0z", "\uFFFDz"},                          //
      {"\xC0\xAF", "\uFFFD\uFFFD"},                      // overlong
      {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},            // a surrogate
      {"\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},  // above U+10FFFF
      {"<|im_end|>\x80", "<|im_end|>\uFFFD"},
  };
  for (const auto& [text, repaired] : cases) {
    EXPECT_EQ(tiny()->encode(text, true), tiny()->encode(repaired, true)) << repaired;
    EXPECT_EQ(tiny()->decode(tiny()->encode(text, true), false), repaired);
  }
}

TEST(Tokenizer, CarriesNulsThrough) {
  const std::string text("a\0\0b", 4);
  EXPECT_EQ(tiny()->decode(tiny()->encode(text, true), false), text);
}

TEST(Tokenizer, ParsesSpecialTokensOnlyWhereAsked) {
  const int32_t end = tiny()->id_of("<|im_end|>");
  EXPECT_EQ(end, 2047);
  EXPECT_EQ(tiny()->encode("<|im_end|>", true), Ids{end});
  const Ids plain = tiny()->encode("<|im_end|>", false);
  EXPECT_GT(plain.size(), 1u);
  EXPECT_EQ(std::count(plain.begin(), plain.end(), end), 0);
  EXPECT_EQ(tiny()->decode(plain, true), "<|im_end|>");
}

TEST(Tokenizer, KnowsSpecialTokensAndIdsOutsideTheVocabulary) {
  EXPECT_TRUE(tiny()->is_special(2046));
  EXPECT_FALSE(tiny()->is_special(0));
  EXPECT_FALSE(tiny()->is_special(-1));
  EXPECT_EQ(tiny()->vocab_size(), 2048);
  EXPECT_EQ(tiny()->id_of("the"), -1);  // a token, but not an added one
  EXPECT_EQ(tiny()->bytes_of(2046), "<|im_start|>");
  EXPECT_EQ(tiny()->bytes_of(2048), "");
  EXPECT_EQ(tiny()->bytes_of(-5), "");
  EXPECT_EQ(tiny()->decode(Ids{2046, 4000, -1, 2047}, true), "");
  EXPECT_EQ(tiny()->decode(Ids{2046, 4000, -1, 2047}, false), "<|im_start|><|im_end|>");
}

TEST(Tokenizer, JoinsSegmentsUnlessTheyAreApart) {
  const std::string head = " t", tail = "he<|im_end|>";
  const TextSegment joined[] = {{head}, {tail}};
  EXPECT_EQ(tiny()->encode(joined), tiny()->encode(" the<|im_end|>", false));
  const TextSegment parsed[] = {{head}, {tail, true}, {"<|im_end|>"}};
  Ids expected = tiny()->encode(" the<|im_end|>", true);
  for (const int32_t id : tiny()->encode("<|im_end|>", false)) expected.push_back(id);
  EXPECT_EQ(tiny()->encode(parsed), expected);
  const TextSegment apart[] = {{head}, {tail, false, true}};
  expected = tiny()->encode(head, false);
  for (const int32_t id : tiny()->encode(tail, false)) expected.push_back(id);
  EXPECT_EQ(tiny()->encode(apart), expected);
  EXPECT_NE(tiny()->encode(apart), tiny()->encode(joined));
  EXPECT_EQ(tiny()->encode(std::span<const TextSegment>()), Ids());
}

TEST(Tokenizer, ParsesASpecialTokenOnlyWhereTrustedSegmentsHoldAllOfIt) {
  const int32_t start = tiny()->id_of("<|im_start|>");
  const std::string whole = "<|im_start|>";
  for (size_t cut = 1; cut < whole.size(); ++cut) {
    const std::string head = whole.substr(0, cut), tail = whole.substr(cut);
    for (const bool first : {false, true}) {
      for (const bool second : {false, true}) {
        const TextSegment segments[] = {{head, first}, {tail, second}};
        const Ids ids = tiny()->encode(segments);
        EXPECT_EQ(ids, first && second ? Ids{start} : tiny()->encode(whole, false)) << cut;
      }
    }
  }
}

TEST(Tokenizer, ParsesOrdinaryAddedTokensWhereverTheyStand) {
  const auto tokenizer = *Variant{{{"added_tokens_decoder",
                                    {{"2048", {{"content", "<think>"}, {"special", false}}},
                                     {"2049", {{"content", "<tool>"}, {"special", false}, {"normalized", false}}},
                                     {"2050", {{"content", "<end>"}, {"special", true}, {"normalized", true}}}}}}}
                              .load();
  const std::string text = "a<think>b<tool><|im_end|><end>e\u0301<think>";
  const Ids plain = tokenizer->encode(text, false), parsed = tokenizer->encode(text, true);
  for (const Ids& ids : {plain, parsed}) {
    EXPECT_EQ(std::count(ids.begin(), ids.end(), 2048), 2);
    EXPECT_EQ(std::count(ids.begin(), ids.end(), 2049), 1);
  }
  for (const int32_t special : {2047, 2050}) {
    EXPECT_EQ(std::count(plain.begin(), plain.end(), special), 0);
    EXPECT_EQ(std::count(parsed.begin(), parsed.end(), special), 1);
  }
  const TextSegment mixed[] = {{"<end>e\u0301", true}, {"<end><thi", false}, {"nk>", true}};
  const Ids ids = tokenizer->encode(mixed);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 2050), 1) << "that of the trusted segment";
}

TEST(Tokenizer, GivesTheSameIdsFromManyThreads) {
  std::mt19937 random(2);
  std::vector<std::string> texts;
  std::vector<Ids> expected;
  for (int i = 0; i < 200; ++i) {
    texts.push_back(random_text(random));
    expected.push_back(tiny()->encode(texts.back(), true));
  }
  const auto tokenizer = tiny();
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < texts.size(); ++i) wrong[t] += tokenizer->encode(texts[i], true) != expected[i];
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

// What would be quadratic, or deep recursion, in a careless implementation. The sizes are those of the largest
// messages.
TEST(Tokenizer, TakesHugePiecesInItsStride) {
  for (const char* unit : {" ", "a", "ab", "\n", " \n", "1", "!", "\u0301", "\u4E2D", "the", "\xFF"}) {
    std::string text;
    while (text.size() < (1 << 20)) text += unit;
    const Ids ids = tiny()->encode(text, true);
    EXPECT_GT(ids.size(), 1000u) << unit;
  }
}

TEST(Tokenizer, SaysWhereGitLeftAPointerInTheFilesPlace) {
  tests::TempDir dir;
  dir.write("tokenizer.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7031645\n");
  const auto tokenizer = Tokenizer::load(dir.path());
  ASSERT_FALSE(tokenizer);
  EXPECT_THAT(tokenizer.error().message, ::testing::HasSubstr("tokenizer.json: Git LFS's pointer to the file"));
}

TEST(Tokenizer, IsMissedWhereThereAreNoFiles) {
  tests::TempDir dir;
  const auto none = Tokenizer::load(dir.path());
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().message,
              ::testing::HasSubstr("no tokenizer.json, vocab.json with merges.txt, or qwen.tiktoken"));
  EXPECT_FALSE(Tokenizer::load(dir.path() / "absent"));
  dir.write("vocab.json", "{}");
  const auto half = Tokenizer::load(dir.path());
  ASSERT_FALSE(half);
  EXPECT_THAT(half.error().message, ::testing::HasSubstr("merges.txt"));
}

}  // namespace
}  // namespace lorikeet::model::testing
