// The one file that includes XGrammar. Its errors are exceptions, its log goes to standard error.
#include <xgrammar/xgrammar.h>

#include <algorithm>
#include <list>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>

#include "model/grammar/grammar.h"
#include "model/grammar/rule_cycles.h"

namespace lorikeet::model {
namespace {

// Tokens that may stand in JSON: XGrammar lets a string of a bounded length have control characters, which JSON does not.
using PlainTokens = std::shared_ptr<const std::vector<uint32_t>>;  // [mask_words(vocab_size)]

bool is_plain(std::string_view text) {
  return std::none_of(text.begin(), text.end(),
                      [](char c) { return static_cast<unsigned char>(c) < 0x20 && c != '\n'; });
}

class XGrammarState final : public GrammarState {
 public:
  XGrammarState(const xgrammar::CompiledGrammar& grammar, const std::vector<int32_t>& stop_ids, PlainTokens plain)
      : matcher_(grammar, stop_ids), stop_ids_(stop_ids), plain_(std::move(plain)) {}

  bool accept(int32_t token) override {
    if (matcher_.IsTerminated()) return std::find(stop_ids_.begin(), stop_ids_.end(), token) != stop_ids_.end();
    return matcher_.AcceptToken(token);
  }

  void fill(std::span<uint32_t> allowed) override {
    if (matcher_.IsTerminated()) {
      std::fill(allowed.begin(), allowed.end(), 0U);
      for (const int32_t id : stop_ids_) {
        const auto word = static_cast<size_t>(id) / 32;
        if (id >= 0 && word < allowed.size()) allowed[word] |= 1U << (id % 32);
      }
      return;
    }
    int64_t shape[] = {static_cast<int64_t>(allowed.size())};
    DLTensor mask{};
    mask.data = allowed.data();
    mask.device = {kDLCPU, 0};
    mask.ndim = 1;
    mask.dtype = {kDLInt, 32, 1};
    mask.shape = shape;
    matcher_.FillNextTokenBitmask(&mask);
    if (!plain_) return;
    const uint32_t* const plain = plain_->data();
    for (size_t i = 0, size = std::min(allowed.size(), plain_->size()); i < size; ++i) allowed[i] &= plain[i];
  }

 private:
  xgrammar::GrammarMatcher matcher_;
  std::vector<int32_t> stop_ids_;
  PlainTokens plain_;  // null: all may stand
};

class XGrammar final : public CompiledGrammar {
 public:
  XGrammar(xgrammar::CompiledGrammar grammar, PlainTokens plain)
      : grammar_(std::move(grammar)), plain_(std::move(plain)) {}

  // XGrammar throws at a stop token outside of the vocabulary.
  std::unique_ptr<GrammarState> begin(const std::vector<int32_t>& stop_ids) const override {
    std::vector<int32_t> known = stop_ids;
    const int32_t vocab_size = grammar_.GetTokenizerInfo().GetVocabSize();
    std::erase_if(known, [vocab_size](int32_t id) { return id < 0 || id >= vocab_size; });
    return std::make_unique<XGrammarState>(grammar_, known, plain_);
  }
  size_t bytes() const override { return grammar_.MemorySizeBytes(); }

 private:
  xgrammar::CompiledGrammar grammar_;
  PlainTokens plain_;
};

// "[12:00:00] /x/y.cc:12: Check failed: (x) is false: what is wrong": without what says where in the library.
std::string sentence_of(std::string_view what) {
  if (const size_t location = what.find(".cc:"); location != std::string_view::npos) {
    if (const size_t end = what.find(": ", location); end != std::string_view::npos) what.remove_prefix(end + 2);
  }
  if (what.starts_with("Check failed: ")) {
    if (const size_t end = what.find("is false: "); end != std::string_view::npos) what.remove_prefix(end + 10);
  }
  std::string sentence(what.substr(0, 400));
  std::replace(sentence.begin(), sentence.end(), '\n', ' ');
  return sentence;
}

class XGrammarCompiler final : public GrammarCompiler {
 public:
  XGrammarCompiler(const xgrammar::TokenizerInfo& vocabulary, PlainTokens plain, size_t cache_bytes)
      : vocabulary_(vocabulary), compiler_(vocabulary, 1, false), plain_(std::move(plain)), cache_bytes_(cache_bytes) {}

  Result<std::shared_ptr<const CompiledGrammar>> compile(const GrammarSpec& spec) override {
    if (auto ok = check_grammar(spec); !ok) return tl::unexpected(ok.error());
    const std::string key = static_cast<char>('0' + static_cast<int>(spec.kind)) + spec.text;
    const std::lock_guard lock(mutex_);
    if (const auto known = by_key_.find(key); known != by_key_.end()) {
      kept_.splice(kept_.begin(), kept_, known->second);
      return known->second->grammar;
    }
    std::shared_ptr<const CompiledGrammar> grammar;
    try {
      if (auto ok = check_rules(spec); !ok) return tl::unexpected(ok.error());
      grammar = std::make_shared<XGrammar>(compiled(spec), is_json(spec) ? plain_ : nullptr);
    } catch (const std::exception& error) {
      return fail("{}", sentence_of(error.what()));
    }
    keep(key, grammar);
    return grammar;
  }

 private:
  struct Kept {
    std::string key;
    std::shared_ptr<const CompiledGrammar> grammar;
    size_t bytes = 0;
  };

  // Not where text of other kinds may stand beside it.
  static bool is_json(const GrammarSpec& spec) {
    if (spec.kind == GrammarKind::json_schema) return true;
    if (spec.kind != GrammarKind::structural_tag) return false;
    constexpr std::string_view kOthers[] = {"any_text", "qwen_xml_parameter", "triggered_tags", "\"regex\"",
                                            "\"grammar\""};
    return std::none_of(std::begin(kOthers), std::end(kOthers),
                        [&](std::string_view other) { return spec.text.find(other) != std::string::npos; });
  }

  // Of what a client has written as rules, or may have in it.
  Result<void> check_rules(const GrammarSpec& spec) const {
    if (spec.kind == GrammarKind::ebnf) {
      return check_rule_cycles(xgrammar::Grammar::FromEBNF(spec.text).SerializeJSON());
    }
    if (spec.kind == GrammarKind::lark) {
      return check_rule_cycles(xgrammar::Grammar::FromLark(spec.text, vocabulary_).SerializeJSON());
    }
    if (spec.kind != GrammarKind::structural_tag) return {};
    const auto read = xgrammar::Grammar::FromStructuralTag(spec.text, vocabulary_);
    const auto* grammar = std::get_if<xgrammar::Grammar>(&read);
    return grammar == nullptr ? Result<void>() : check_rule_cycles(grammar->SerializeJSON());  // compiling says why
  }

  xgrammar::CompiledGrammar compiled(const GrammarSpec& spec) {
    switch (spec.kind) {
      case GrammarKind::json_schema:
        // Some white space, since models write it, but not endless: an answer of spaces alone would never end.
        return compiler_.CompileJSONSchema(spec.text, true, std::nullopt, std::nullopt, true, kMostSpaces);
      case GrammarKind::regex:
        return compiler_.CompileRegex(spec.text);
      case GrammarKind::ebnf:
        return compiler_.CompileGrammar(spec.text);
      case GrammarKind::lark:
        return compiler_.CompileLark(spec.text);
      case GrammarKind::structural_tag:
        return compiler_.CompileStructuralTag(spec.text);
    }
    return compiler_.CompileBuiltinJSONGrammar();
  }

  void keep(const std::string& key, std::shared_ptr<const CompiledGrammar> grammar) {
    const size_t bytes = grammar->bytes() + key.size() * 2;
    if (bytes > cache_bytes_) return;
    kept_.push_front({key, std::move(grammar), bytes});
    by_key_[key] = kept_.begin();
    kept_bytes_ += bytes;
    while (kept_bytes_ > cache_bytes_) {
      kept_bytes_ -= kept_.back().bytes;
      by_key_.erase(kept_.back().key);
      kept_.pop_back();
    }
  }

  static constexpr int kMostSpaces = 16;

  std::mutex mutex_;
  const xgrammar::TokenizerInfo vocabulary_;
  xgrammar::GrammarCompiler compiler_;
  const PlainTokens plain_;
  const size_t cache_bytes_;
  size_t kept_bytes_ = 0;
  std::list<Kept> kept_;  // the latest first
  std::unordered_map<std::string, std::list<Kept>::iterator> by_key_;
};

}  // namespace

bool has_grammars() {
  return true;
}

Result<std::shared_ptr<GrammarCompiler>> make_grammar_compiler(const Tokenizer& tokenizer, int32_t vocab_size,
                                                               size_t cache_bytes) {
  std::vector<std::string> vocabulary(static_cast<size_t>(std::max(vocab_size, 0)));
  for (int32_t id = 0; id < std::min(vocab_size, tokenizer.vocab_size()); ++id) {
    // No grammar spells a special token, or one that the tokenizer does not have: an empty text is never allowed.
    if (!tokenizer.is_special(id)) vocabulary[static_cast<size_t>(id)] = tokenizer.bytes_of(id);
  }
  auto plain = std::make_shared<std::vector<uint32_t>>((vocabulary.size() + 31) / 32);
  for (size_t id = 0; id < vocabulary.size(); ++id) {
    if (is_plain(vocabulary[id])) (*plain)[id / 32] |= 1U << (id % 32);
  }
  try {
    const xgrammar::TokenizerInfo info(vocabulary, xgrammar::VocabType::RAW, vocab_size, std::vector<int32_t>{});
    return std::make_shared<XGrammarCompiler>(info, std::move(plain), cache_bytes);
  } catch (const std::exception& error) {
    return fail("the vocabulary cannot be used for grammars: {}", sentence_of(error.what()));
  }
}

}  // namespace lorikeet::model
