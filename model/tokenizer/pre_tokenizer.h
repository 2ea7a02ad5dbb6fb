// Cuts text into the pieces that BPE encodes one by one: Qwen2's expression (contractions, words with one leading
// non-letter, single digits, punctuation, newlines, spaces). Source: transformers' tokenization_qwen2.py.
// Letters and numbers are those of PCRE2's Unicode version (14 in PCRE2 10.42): the ids of characters that a later
// version assigned may differ from an implementation that knows it.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "kernels/base/error.h"

namespace lorikeet::model {

// What one thread needs to match; only to be used with the PreTokenizer that made it, and not after it is gone.
class PieceMatcher {
 public:
  PieceMatcher(PieceMatcher&&) noexcept;
  ~PieceMatcher();

  // The end of the piece that begins at `begin` (< text.size()); the pieces tile the text. text is valid UTF-8 and
  // begin is a character's first byte.
  size_t end_of_piece(std::string_view text, size_t begin);

 private:
  friend class PreTokenizer;
  struct Impl;
  explicit PieceMatcher(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Threads: const methods from any number of threads at once.
class PreTokenizer {
 public:
  // The expression as Qwen's files spell it; the only one known here.
  static constexpr std::string_view kQwenExpression =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

  PreTokenizer();
  ~PreTokenizer();

  PieceMatcher matcher() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lorikeet::model
