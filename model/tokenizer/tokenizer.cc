#include "model/tokenizer/tokenizer.h"

#include <algorithm>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "model/tokenizer/added_tokens.h"
#include "model/tokenizer/bpe.h"
#include "model/tokenizer/normalizer.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/tokenizer_files.h"
#include "model/tokenizer/utf8.h"

namespace lorikeet::model {
namespace {

// What one thread needs while it encodes.
struct Scratch {
  explicit Scratch(const PreTokenizer& pre_tokenizer) : matcher(pre_tokenizer.matcher()) {}
  PieceMatcher matcher;
  BpeScratch bpe;
};

std::vector<AddedToken> select(const std::vector<AddedToken>& tokens, bool normalized) {
  std::vector<AddedToken> selected;
  std::copy_if(tokens.begin(), tokens.end(), std::back_inserter(selected),
               [&](const AddedToken& token) { return token.normalized == normalized; });
  return selected;
}

std::vector<AddedToken> select_normalized(const std::vector<AddedToken>& tokens, bool nfc) {
  std::vector<AddedToken> selected = select(tokens, true);
  for (AddedToken& token : selected) {
    if (!nfc) continue;
    std::string normalized;  // what the normalised text would show of it
    append_nfc(token.content, &normalized);
    token.content = std::move(normalized);
  }
  return selected;
}

}  // namespace

struct Tokenizer::Impl {
  Impl(TokenizerFiles files, Bpe bpe_of_files)
      : vocabulary(std::move(files.vocabulary)),
        bpe(std::move(bpe_of_files)),
        nfc(files.nfc),
        frame(std::move(files.frame)),
        named_tokens(std::move(files.named_tokens)),
        raw_matcher(select(files.added_tokens, false)),
        normalized_matcher(select_normalized(files.added_tokens, files.nfc)) {
    for (AddedToken& token : files.added_tokens) {
      added_ids.emplace(token.content, token.id);
      vocab_size = std::max(vocab_size, token.id + 1);
      const int32_t id = token.id;
      added.emplace(id, std::move(token));
    }
    vocab_size = std::max(vocab_size, vocabulary->size());
  }

  std::unique_ptr<Scratch> take_scratch() {
    {
      const std::lock_guard lock(mutex);
      if (!idle.empty()) {
        auto scratch = std::move(idle.back());
        idle.pop_back();
        return scratch;
      }
    }
    return std::make_unique<Scratch>(pre_tokenizer);
  }

  void give_back(std::unique_ptr<Scratch> scratch) {
    const std::lock_guard lock(mutex);
    idle.push_back(std::move(scratch));
  }

  void encode_pieces(std::string_view text, Scratch* scratch, std::vector<int32_t>* ids) const {
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = scratch->matcher.end_of_piece(text, begin);
      bpe.encode(text.substr(begin, end - begin), &scratch->bpe, ids);
      begin = end;
    }
  }

  // A run of text between the added tokens that are found in text as given; it begins at byte `offset` of what
  // `trusted` speaks of.
  void encode_run(std::string_view text, size_t offset, const TrustedRanges& trusted, Scratch* scratch,
                  std::vector<int32_t>* ids) const {
    if (!nfc || is_surely_nfc(text)) return encode_normalized(text, trusted, offset, scratch, ids);
    // Normalising moves bytes: where special tokens are looked for in its result, no text is normalised across a border
    // of trust.
    const bool whole =
        !normalized_matcher.has_special() || trusted.next_border(offset, offset + text.size()) == offset + text.size();
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = whole ? text.size() : trusted.next_border(offset + begin, offset + text.size()) - offset;
      std::string normalized;
      append_nfc(text.substr(begin, end - begin), &normalized);
      TrustedRanges all;
      if (trusted.touches(offset + begin, offset + end)) all.add(0, normalized.size());
      encode_normalized(normalized, all, 0, scratch, ids);
      begin = end;
    }
  }

  void encode_normalized(std::string_view text, const TrustedRanges& trusted, size_t offset, Scratch* scratch,
                         std::vector<int32_t>* ids) const {
    if (normalized_matcher.empty()) return encode_pieces(text, scratch, ids);
    split(text, normalized_matcher, trusted, offset, ids,
          [&](size_t begin, size_t end) { encode_pieces(text.substr(begin, end - begin), scratch, ids); });
  }

  // Calls encode_part with the parts of text between added tokens, whose ids it appends.
  template <class EncodePart>
  static void split(std::string_view text, const AddedTokenMatcher& matcher, const TrustedRanges& trusted,
                    size_t offset, std::vector<int32_t>* ids, EncodePart encode_part) {
    for (AddedTokenMatcher::Place place;;) {
      const size_t begin = place.taken;
      const auto match = matcher.next(text, place, trusted, offset);
      const size_t end = match.id < 0 ? text.size() : match.begin;
      if (end > begin) encode_part(begin, end);
      if (match.id < 0) return;
      ids->push_back(match.id);
    }
  }

  // A text that nothing is joined to.
  void encode_whole(std::string_view text, const TrustedRanges& trusted, Scratch* scratch,
                    std::vector<int32_t>* ids) const {
    split(text, raw_matcher, trusted, 0, ids,
          [&](size_t begin, size_t end) { encode_run(text.substr(begin, end - begin), begin, trusted, scratch, ids); });
  }

  const std::shared_ptr<const Vocabulary> vocabulary;
  const Bpe bpe;
  const PreTokenizer pre_tokenizer;
  const bool nfc;
  const PromptFrame frame;
  const std::map<std::string, std::string> named_tokens;
  const AddedTokenMatcher raw_matcher;         // of added tokens found in the text as given
  const AddedTokenMatcher normalized_matcher;  // of those found in the normalised text
  std::unordered_map<std::string, int32_t> added_ids;
  std::unordered_map<int32_t, AddedToken> added;
  int32_t vocab_size = 0;

  std::mutex mutex;
  std::vector<std::unique_ptr<Scratch>> idle;  // at most one per thread that ever encoded at the same time; by mutex
};

bool Tokenizer::is_in(const std::filesystem::path& dir) {
  std::error_code error;
  for (const char* name : {"tokenizer.json", "vocab.json", "qwen.tiktoken"}) {
    if (std::filesystem::exists(dir / name, error)) return true;
  }
  return false;
}

Result<std::shared_ptr<const Tokenizer>> Tokenizer::load(const std::filesystem::path& dir) {
  auto files = read_tokenizer_files(dir);
  if (!files) return tl::unexpected(files.error());
  auto bpe = Bpe::create(files->vocabulary, files->merges, files->whole_piece_first);
  if (!bpe) return fail("{}: {}", dir.string(), bpe.error().message);
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::make_unique<Impl>(std::move(*files), std::move(*bpe))));
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool parse_special) const {
  const TextSegment segment{text, parse_special};
  return encode(std::span(&segment, 1));
}

std::vector<int32_t> Tokenizer::encode(std::span<const TextSegment> segments) const {
  std::vector<int32_t> ids;
  size_t bytes = 0;
  for (const TextSegment& segment : segments) bytes += segment.text.size();
  ids.reserve(bytes / 3 + 8);
  auto scratch = impl_->take_scratch();
  if (segments.size() == 1 && is_valid_utf8(segments[0].text)) {  // the usual case: nothing to join, nothing is copied
    TrustedRanges trusted;
    if (segments[0].parse_special) trusted.add(0, segments[0].text.size());
    impl_->encode_whole(segments[0].text, trusted, scratch.get(), &ids);
    impl_->give_back(std::move(scratch));
    return ids;
  }
  std::string text;  // of neighbouring segments that is cut as one
  TrustedRanges trusted;
  const auto flush = [&] {
    impl_->encode_whole(text, trusted, scratch.get(), &ids);
    text.clear();
    trusted = {};
  };
  for (const TextSegment& segment : segments) {
    if (segment.apart) flush();
    const size_t begin = text.size();
    append_repaired_utf8(segment.text, &text);
    if (segment.parse_special) trusted.add(begin, text.size());
  }
  flush();
  impl_->give_back(std::move(scratch));
  return ids;
}

std::vector<int32_t> Tokenizer::encode_prompt(std::string_view text, bool parse_special) const {
  return framed(encode(text, parse_special));
}

std::vector<int32_t> Tokenizer::framed(std::vector<int32_t> ids) const {
  ids.insert(ids.begin(), impl_->frame.prefix.begin(), impl_->frame.prefix.end());
  ids.insert(ids.end(), impl_->frame.suffix.begin(), impl_->frame.suffix.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (!skip_special || !is_special(id)) bytes += bytes_of(id);
  }
  std::string text;
  text.reserve(bytes.size());
  append_repaired_utf8(bytes, &text);
  return text;
}

std::string_view Tokenizer::bytes_of(int32_t id) const {
  const auto added = impl_->added.find(id);
  return added != impl_->added.end() ? std::string_view(added->second.content) : impl_->vocabulary->bytes_of(id);
}

bool Tokenizer::is_special(int32_t id) const {
  const auto added = impl_->added.find(id);
  return added != impl_->added.end() && added->second.special;
}

int32_t Tokenizer::vocab_size() const {
  return impl_->vocab_size;
}

int32_t Tokenizer::id_of(std::string_view added_token) const {
  const auto found = impl_->added_ids.find(std::string(added_token));
  return found == impl_->added_ids.end() ? -1 : found->second;
}

const std::map<std::string, std::string>& Tokenizer::named_tokens() const {
  return impl_->named_tokens;
}

int32_t Tokenizer::eos_id() const {
  const auto named = impl_->named_tokens.find("eos_token");
  return named == impl_->named_tokens.end() ? -1 : id_of(named->second);
}

}  // namespace lorikeet::model
