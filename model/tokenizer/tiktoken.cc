// qwen.tiktoken, the vocabulary file of Qwen v1: a line per token, its bytes in base64 and its rank, which is its id.
// Source: QwenLM/Qwen's tokenization_qwen.py.
#include <openssl/evp.h>

#include <algorithm>
#include <charconv>
#include <string>

#include "model/tokenizer/tokenizer_files.h"

namespace lorikeet::model {
namespace {

constexpr int32_t kFirstSpecial = 151643;
constexpr int kExtras = 205;
constexpr size_t kMaxBase64 = 4096;

// False if text is not base64 of at least one byte.
bool decode_base64(std::string_view text, std::string* bytes) {
  if (text.empty() || text.size() > kMaxBase64 || text.size() % 4 != 0) return false;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  if (text.find('=') < text.size() - padding) return false;  // EVP_DecodeBlock would take it for a zero
  bytes->resize(text.size() / 4 * 3);
  const int length =
      EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes->data()),
                      reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
  if (length < 0) return false;
  bytes->resize(static_cast<size_t>(length) - padding);
  return !bytes->empty();
}

// tiktoken merges any two neighbours whose bytes together are a token, the lowest rank first: every way to cut a token
// into two tokens is a merge of its rank.
std::vector<Merge> merges_of(const Vocabulary& vocabulary) {
  std::vector<Merge> merges;
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    const std::string_view bytes = vocabulary.bytes_of(id);
    for (size_t cut = 1; cut < bytes.size(); ++cut) {
      const int32_t left = vocabulary.find(bytes.substr(0, cut));
      if (left < 0) continue;
      const int32_t right = vocabulary.find(bytes.substr(cut));
      if (right >= 0) merges.push_back({left, right, id, id});
    }
  }
  return merges;
}

}  // namespace

Result<TokenizerFiles> parse_tiktoken(std::string_view lines) {
  auto vocabulary = std::make_shared<Vocabulary>();
  std::string bytes;
  for (size_t number = 1; !lines.empty(); ++number) {
    const size_t end = std::min(lines.find('\n'), lines.size());
    std::string_view line = lines.substr(0, end);
    lines.remove_prefix(std::min(end + 1, lines.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const size_t space = std::min(line.find(' '), line.size());
    const std::string_view rank_text = line.substr(std::min(space + 1, line.size()));
    int32_t rank = -1;
    const auto parsed = std::from_chars(rank_text.data(), rank_text.data() + rank_text.size(), rank);
    if (parsed.ec != std::errc() || parsed.ptr != rank_text.data() + rank_text.size() ||
        !decode_base64(line.substr(0, space), &bytes)) {
      return fail("line {} is not a token in base64 and its rank", number);
    }
    if (rank >= kFirstSpecial) {
      return fail("line {}: rank {} is where the control tokens begin ({})", number, rank, kFirstSpecial);
    }
    if (auto ok = vocabulary->add(rank, bytes); !ok) return fail("line {}: {}", number, ok.error().message);
  }
  TokenizerFiles files;
  files.merges = merges_of(*vocabulary);
  files.vocabulary = std::move(vocabulary);
  files.whole_piece_first = true;
  int32_t id = kFirstSpecial;
  auto add_special = [&](std::string content) {
    AddedToken token;
    token.id = id++;
    token.content = std::move(content);
    token.special = true;
    files.added_tokens.push_back(std::move(token));
  };
  for (const char* content : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) add_special(content);
  for (int i = 0; i < kExtras; ++i) add_special(fmt::format("<|extra_{}|>", i));
  return files;
}

}  // namespace lorikeet::model
