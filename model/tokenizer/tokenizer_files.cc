#include "model/tokenizer/tokenizer_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_set>
#include <utility>

#include "model/config/read_file.h"
#include "model/tokenizer/bpe_json.h"
#include "model/tokenizer/byte_alphabet.h"
#include "model/tokenizer/json_values.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/tokenizer_config.h"
#include "model/tokenizer/utf8.h"

namespace lorikeet::model {
namespace {

using nlohmann::json;

constexpr int64_t kMaxVocabularyFile = 256 << 20;
constexpr size_t kMaxAddedToken = 4096;  // bytes

Result<void> check_byte_level(const json& step) {
  // Both default to true in the reference, which would add a space or cut by GPT-2's expression.
  for (const char* key : {"add_prefix_space", "use_regex"}) {
    if (!is_false(member(step, key))) {
      return fail("pre_tokenizer: ByteLevel with {} = {}; only false is served", key, brief(member(step, key)));
    }
  }
  return {};
}

Result<void> check_split(const json& step) {
  const json& expression = member(member(step, "pattern"), "Regex");
  if (expression != PreTokenizer::kQwenExpression) {
    return fail("pre_tokenizer: splits by {}, which is not Qwen's expression", brief(expression));
  }
  if (member(step, "behavior") != "Isolated" || !is_off(member(step, "invert"))) {
    return fail("pre_tokenizer: Split with behavior {} and invert {}; only Isolated and false are served",
                brief(member(step, "behavior")), brief(member(step, "invert")));
  }
  return {};
}

Result<void> check_pre_tokenizer(const json& pre_tokenizer) {
  const json& steps = member(pre_tokenizer, "pretokenizers");
  const bool fits = member(pre_tokenizer, "type") == "Sequence" && steps.is_array() && steps.size() == 2 &&
                    member(steps[0], "type") == "Split" && member(steps[1], "type") == "ByteLevel";
  if (!fits) {
    return fail("pre_tokenizer is {}; only a Sequence of Split by Qwen's expression and ByteLevel is served",
                brief(member(pre_tokenizer, "type")));
  }
  if (auto ok = check_split(steps[0]); !ok) return ok;
  return check_byte_level(steps[1]);
}

// ByteLevel, also as the only step of a Sequence.
Result<void> check_decoder(const json& decoder) {
  const json& steps = member(decoder, "decoders");
  const bool one_step = member(decoder, "type") == "Sequence" && steps.is_array() && steps.size() == 1;
  if (member(one_step ? steps[0] : decoder, "type") == "ByteLevel") return {};
  return fail("decoder is {}; only ByteLevel is served", brief(member(decoder, "type")));
}

Result<bool> is_nfc(const json& normalizer) {
  if (normalizer.is_null()) return false;
  const json& type = member(normalizer, "type");
  if (type == "NFC") return true;
  if (const json& steps = member(normalizer, "normalizers"); type == "Sequence" && steps.is_array()) {
    if (steps.empty()) return false;
    if (steps.size() == 1 && member(steps[0], "type") == "NFC") return true;
  }
  return fail("normalizer is {}; only NFC and none are served", brief(type));
}

Result<void> check_model(const json& model) {
  if (!model.is_object()) return fail("there is no model");
  const json& type = member(model, "type");  // early files leave it out
  if (!type.is_null() && type != "BPE") return fail("model is {}; only BPE is served", brief(type));
  const json& dropout = member(model, "dropout");
  if (!dropout.is_null() && dropout != 0) return fail("model.dropout is {}; only none is served", brief(dropout));
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const json& value = member(model, key);
    if (!value.is_null() && value != "") return fail("model.{} is {}; only none is served", key, brief(value));
  }
  const json& ignore_merges = member(model, "ignore_merges");
  if (!ignore_merges.is_null() && !ignore_merges.is_boolean()) {
    return fail("model.ignore_merges is {}, not a boolean", brief(ignore_merges));
  }
  if (!member(model, "vocab").is_boolean()) return fail("model.vocab is not an object");
  if (!member(model, "merges").is_boolean()) return fail("model.merges is not an array");
  return {};
}

// What becomes of bytes without a token: nothing, where there are none.
Result<void> check_unknown_bytes(const json& model, const Vocabulary& vocabulary) {
  bool all_known = true;
  for (int byte = 0; byte < 256; ++byte) {
    const char one = static_cast<char>(byte);
    all_known = all_known && vocabulary.find({&one, 1}) >= 0;
  }
  if (all_known) return {};
  const json& unknown = member(model, "unk_token");
  if (!unknown.is_null() && unknown != "") return fail("model.unk_token is {}; only none is served", brief(unknown));
  if (!is_off(member(model, "byte_fallback"))) return fail("model.byte_fallback is on; only off is served");
  return {};
}

Result<bool> flag(const json& token, const char* key, bool fallback) {
  const json& value = member(token, key);
  if (value.is_null()) return fallback;
  if (!value.is_boolean())
    return fail("added token {}: {} is {}, not a boolean", brief(member(token, "content")), key, brief(value));
  return value.get<bool>();
}

// One entry of added_tokens or added_tokens_decoder.
Result<AddedToken> parse_added_token(const json& entry, int64_t id) {
  const json& content = member(entry, "content");
  if (!content.is_string()) return fail("added token {}: content is {}, not a string", id, brief(content));
  AddedToken token;
  token.content = content.get<std::string>();
  if (token.content.empty() || token.content.size() > kMaxAddedToken) {
    return fail("added token {}: content has {} bytes, not 1 to {}", id, token.content.size(), kMaxAddedToken);
  }
  if (id < 0 || id > Vocabulary::kMaxId) {
    return fail("added token {}: id {} is outside 0..{}", brief(content), id, Vocabulary::kMaxId);
  }
  token.id = static_cast<int32_t>(id);
  auto special = flag(entry, "special", false);
  if (!special) return tl::unexpected(special.error());
  token.special = *special;
  const std::pair<const char*, bool*> flags[] = {{"normalized", &token.normalized},
                                                 {"single_word", &token.single_word},
                                                 {"lstrip", &token.lstrip},
                                                 {"rstrip", &token.rstrip}};
  for (const auto& [key, value] : flags) {
    auto parsed = flag(entry, key, key == std::string_view("normalized") && !token.special);
    if (!parsed) return tl::unexpected(parsed.error());
    *value = *parsed;
  }
  return token;
}

// Ids and contents must be new, and an id that the vocabulary has must be the same token there.
Result<void> check_added_tokens(const TokenizerFiles& files) {
  std::unordered_set<int32_t> ids;
  std::unordered_set<std::string_view> contents;
  for (const AddedToken& token : files.added_tokens) {
    if (!ids.insert(token.id).second) return fail("two added tokens have id {}", token.id);
    if (!contents.insert(token.content).second) return fail("the added token \"{}\" has two ids", token.content);
    const std::string_view existing = files.vocabulary->bytes_of(token.id);
    if (!existing.empty() && existing != token.content) {
      return fail("the added token \"{}\" has the id {} of another token of the vocabulary", token.content, token.id);
    }
  }
  return {};
}

// Turns the file's spelling into bytes and ids. An added token may stand in the vocabulary too, in its own letters: one
// that is not spelt in the byte alphabet is left to the added tokens.
Result<void> build_bpe(const BpeJson& bpe, TokenizerFiles* files) {
  std::unordered_set<int32_t> added_ids;
  for (const AddedToken& token : files->added_tokens) added_ids.insert(token.id);
  auto vocabulary = std::make_shared<Vocabulary>();
  std::string bytes;
  for (const auto& [spelt, id] : bpe.vocab) {
    bytes.clear();
    if (!append_spelt_bytes(spelt, &bytes)) {
      if (added_ids.contains(id)) continue;
      return fail("the token \"{}\" (id {}) is not spelt in the byte-level alphabet", spelt, id);
    }
    if (auto ok = vocabulary->add(id, bytes); !ok) return fail("model.vocab: {}", ok.error().message);
  }
  files->merges.reserve(bpe.merges.size());
  for (const auto& [left, right] : bpe.merges) {
    bytes.clear();
    bool spelt = append_spelt_bytes(left, &bytes);
    const size_t left_size = bytes.size();
    spelt = spelt && append_spelt_bytes(right, &bytes);
    const std::string_view both = bytes;
    const Merge merge{vocabulary->find(both.substr(0, left_size)), vocabulary->find(both.substr(left_size)),
                      vocabulary->find(both), static_cast<int32_t>(files->merges.size())};
    if (!spelt || merge.left < 0 || merge.right < 0 || merge.merged < 0) {
      return fail("merge {} (\"{} {}\"): it or a part of it is not in the vocabulary", merge.rank, left, right);
    }
    files->merges.push_back(merge);
  }
  files->vocabulary = std::move(vocabulary);
  return check_added_tokens(*files);
}

// Tokens that the other files name: those of added_tokens.json that are new, and special ones that so far stand in the
// vocabulary alone.
Result<void> join_named_tokens(const TokenizerConfig& config, TokenizerFiles* files) {
  std::unordered_set<std::string> known, special(config.special_tokens.begin(), config.special_tokens.end());
  for (const AddedToken& token : files->added_tokens) known.insert(token.content);
  for (const auto& [content, id] : config.added_tokens.items()) {
    if (!known.insert(content).second) continue;
    const json entry = {{"content", content}, {"special", special.contains(content)}};
    if (!id.is_number_integer()) return fail("added_tokens.json: the id of \"{}\" is {}", content, brief(id));
    auto token = parse_added_token(entry, id.get<int64_t>());
    if (!token) return fail("added_tokens.json: {}", token.error().message);
    files->added_tokens.push_back(*std::move(token));
  }
  for (const std::string& content : config.special_tokens) {
    const int32_t id = files->vocabulary->find(content);
    if (id < 0 || !known.insert(content).second) continue;
    files->added_tokens.push_back({.id = id, .content = content, .special = true});
  }
  return check_added_tokens(*files);
}

// add_bos_token and add_eos_token overrule the post-processor on their side of the text.
void frame_prompts(const TokenizerConfig& config, TokenizerFiles* files) {
  const auto side = [&](std::optional<bool> wanted, const char* name, std::vector<int32_t>* ids) {
    if (!wanted) return;
    ids->clear();
    const auto named = files->named_tokens.find(name);
    if (!*wanted || named == files->named_tokens.end()) return;
    for (const AddedToken& token : files->added_tokens) {
      if (token.content == named->second) ids->push_back(token.id);
    }
  };
  side(config.add_bos_token, "bos_token", &files->frame.prefix);
  side(config.add_eos_token, "eos_token", &files->frame.suffix);
}

}  // namespace

Result<TokenizerFiles> parse_tokenizer_json(std::string_view text) {
  auto bpe = parse_tokenizer_json_stream(text);
  if (!bpe) return tl::unexpected(bpe.error());
  const json& root = bpe->rest;
  if (!root.is_object()) return fail("the root is not an object");
  // truncation and padding are the caller's business and trim_offsets concerns offsets alone: they change no id here.
  TokenizerFiles files;
  auto nfc = is_nfc(member(root, "normalizer"));
  if (!nfc) return tl::unexpected(nfc.error());
  files.nfc = *nfc;
  if (auto ok = check_model(member(root, "model")); !ok) return tl::unexpected(ok.error());
  files.whole_piece_first = member(member(root, "model"), "ignore_merges") == true;
  if (auto ok = check_pre_tokenizer(member(root, "pre_tokenizer")); !ok) return tl::unexpected(ok.error());
  auto frame = parse_post_processor(member(root, "post_processor"));
  if (!frame) return tl::unexpected(frame.error());
  files.frame = *std::move(frame);
  if (auto ok = check_decoder(member(root, "decoder")); !ok) return tl::unexpected(ok.error());
  const json& added = member(root, "added_tokens");
  if (!added.is_null() && !added.is_array()) return fail("added_tokens is {}, not an array", brief(added));
  for (const json& entry : added) {
    const json& id = member(entry, "id");
    if (!id.is_number_unsigned()) {
      return fail("added token {}: its id is {}, not a number from 0", brief(member(entry, "content")), brief(id));
    }
    auto token = parse_added_token(entry, static_cast<int64_t>(std::min<uint64_t>(id.get<uint64_t>(), INT32_MAX)));
    if (!token) return tl::unexpected(token.error());
    files.added_tokens.push_back(std::move(*token));
  }
  if (auto ok = build_bpe(*bpe, &files); !ok) return tl::unexpected(ok.error());
  if (auto ok = check_unknown_bytes(member(root, "model"), *files.vocabulary); !ok) return tl::unexpected(ok.error());
  return files;
}

Result<TokenizerFiles> parse_vocab_and_merges(std::string_view vocab_json, std::string_view merges_txt) {
  auto bpe = parse_vocab_json_stream(vocab_json);
  if (!bpe) return fail("vocab.json: {}", bpe.error().message);
  for (size_t number = 1; !merges_txt.empty(); ++number) {
    const size_t end = std::min(merges_txt.find('\n'), merges_txt.size());
    std::string_view line = merges_txt.substr(0, end);
    merges_txt.remove_prefix(std::min(end + 1, merges_txt.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || (number == 1 && line.starts_with("#version"))) continue;
    const auto [left, right] = split_merge(line);
    if (left.empty()) return fail("merges.txt: line {} is not two tokens with a space between", number);
    bpe->merges.emplace_back(left, right);
  }
  TokenizerFiles files;
  if (auto ok = build_bpe(*bpe, &files); !ok) return tl::unexpected(ok.error());
  return files;
}

Result<void> join_added_tokens_decoder(std::string_view tokenizer_config_json, TokenizerFiles* files) {
  const json config = json::parse(tokenizer_config_json, nullptr, false);
  if (!config.is_object()) return fail("not a JSON object");
  const json& decoder = member(config, "added_tokens_decoder");
  if (!decoder.is_null() && !decoder.is_object()) return fail("added_tokens_decoder is not an object");
  std::unordered_set<int32_t> known;
  for (const AddedToken& token : files->added_tokens) known.insert(token.id);
  for (const auto& [key, entry] : decoder.items()) {
    int64_t id = -1;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size()) {
      return fail("added_tokens_decoder: \"{}\" is not a token id", key);
    }
    auto token = parse_added_token(entry, id);
    if (!token) return tl::unexpected(token.error());
    // tokenizer.json's own entry wins, as long as both mean the same token.
    if (known.contains(token->id)) {
      for (const AddedToken& own : files->added_tokens) {
        if (own.id == token->id && own.content != token->content) {
          return fail("added_tokens_decoder: id {} is \"{}\", but \"{}\" in tokenizer.json", id, token->content,
                      own.content);
        }
      }
      continue;
    }
    files->added_tokens.push_back(std::move(*token));
  }
  return check_added_tokens(*files);
}

Result<TokenizerFiles> read_tokenizer_files(const std::filesystem::path& dir) {
  const auto in_dir = [&](const char* name) { return dir / name; };
  std::error_code error;
  Result<TokenizerFiles> files =
      fail("{}: no tokenizer.json, vocab.json with merges.txt, or qwen.tiktoken", dir.string());
  const bool whole = std::filesystem::exists(in_dir("tokenizer.json"), error);
  if (whole) {
    auto text = read_file(in_dir("tokenizer.json"), kMaxVocabularyFile);
    if (!text) return tl::unexpected(text.error());
    files = parse_tokenizer_json(*text);
    if (!files) return fail("{}: {}", in_dir("tokenizer.json").string(), files.error().message);
  } else if (std::filesystem::exists(in_dir("vocab.json"), error)) {
    auto vocab = read_file(in_dir("vocab.json"), kMaxVocabularyFile);
    if (!vocab) return tl::unexpected(vocab.error());
    auto merges = read_file(in_dir("merges.txt"), kMaxVocabularyFile);
    if (!merges) return tl::unexpected(merges.error());
    files = parse_vocab_and_merges(*vocab, *merges);
    if (!files) return fail("{}: {}", dir.string(), files.error().message);
  } else if (std::filesystem::exists(in_dir("qwen.tiktoken"), error)) {
    auto lines = read_file(in_dir("qwen.tiktoken"), kMaxVocabularyFile);
    if (!lines) return tl::unexpected(lines.error());
    files = parse_tiktoken(*lines);
    if (!files) return fail("{}: {}", in_dir("qwen.tiktoken").string(), files.error().message);
    return files;
  }
  if (!files) return files;
  auto config = read_tokenizer_config(dir, !whole);
  if (!config) return tl::unexpected(config.error());
  if (config->exists) {
    if (auto ok = join_added_tokens_decoder(config->json.dump(), &*files); !ok) {
      return fail("{}: {}", in_dir("tokenizer_config.json").string(), ok.error().message);
    }
  }
  if (auto ok = join_named_tokens(*config, &*files); !ok) return fail("{}: {}", dir.string(), ok.error().message);
  files->named_tokens = std::move(config->named_tokens);
  frame_prompts(*config, &*files);
  return files;
}

}  // namespace lorikeet::model
