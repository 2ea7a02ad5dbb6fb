// Byte-level BPE with Qwen2's pre-tokenizer. Formats reference, section 6.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/error.h"

namespace lorikeet::model {

// A stretch of a text that is encoded as a whole: a chat template's own words, or a message body inside them.
struct TextSegment {
  std::string_view text;
  bool parse_special = false;  // special tokens in it become their ids; otherwise their characters are ordinary text
  bool apart = false;          // no token spans this segment and the one before
};

// Threads: const methods from any number of threads at once.
class Tokenizer {
 public:
  // Reads DIR/tokenizer.json, or DIR/vocab.json + DIR/merges.txt (+ tokenizer_config.json for the added tokens), or
  // DIR/qwen.tiktoken (Qwen v1). What it would not encode exactly as the reference does is refused.
  static Result<std::shared_ptr<const Tokenizer>> load(const std::filesystem::path& dir);
  ~Tokenizer();

  // Whether DIR holds any of these files. Checkpoints for measuring often have none.
  static bool is_in(const std::filesystem::path& dir);

  // text (UTF-8; invalid bytes become U+FFFD first) -> ids. Added tokens in the text become their ids; without
  // parse_special, those that are special do not: their characters are ordinary text.
  std::vector<int32_t> encode(std::string_view text, bool parse_special) const;

  // The ids of the segments' texts put together; only added tokens and `apart` keep tokens from spanning segments. A
  // special token is parsed only where segments with parse_special hold all of it.
  std::vector<int32_t> encode(std::span<const TextSegment> segments) const;

  // A raw prompt: its ids, and around them what the tokenizer's post-processor puts there (a begin
  // token, say). Chat templates write such tokens themselves: their text is not for this.
  std::vector<int32_t> encode_prompt(std::string_view text, bool parse_special = true) const;
  std::vector<int32_t> framed(std::vector<int32_t> ids) const;  // the second half of it

  // ids -> text; invalid UTF-8 becomes U+FFFD, ids outside the vocabulary become nothing.
  std::string decode(std::span<const int32_t> ids, bool skip_special) const;

  // The raw bytes of one token (not necessarily whole characters); empty for ids outside the vocabulary.
  std::string_view bytes_of(int32_t id) const;

  bool is_special(int32_t id) const;
  int32_t vocab_size() const;                         // largest id + 1
  int32_t id_of(std::string_view added_token) const;  // of an added token such as "<|im_end|>"; -1 if there is none

  // The tokens that the checkpoint's files give a role: "eos_token" -> "<|im_end|>", and so on.
  const std::map<std::string, std::string>& named_tokens() const;
  int32_t eos_id() const;  // of the token named eos_token; -1 if there is none

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lorikeet::model
