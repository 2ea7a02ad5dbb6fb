// Tokens that stand beside the BPE vocabulary (control tokens such as <|im_end|>) and where they occur in text.
// Source: huggingface/tokenizers' added_vocabulary, whose matching this follows.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorikeet::model {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;      // left out of decoded text where special tokens are skipped
  bool normalized = false;   // found in the normalised text; else in the text as given
  bool single_word = false;  // found only where no word character is next to it
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // takes the white space after it along
};

// The bytes of a text in which special tokens count; elsewhere their characters are ordinary text.
class TrustedRanges {
 public:
  // Ranges come in order and do not overlap; neighbours become one.
  void add(size_t begin, size_t end);
  bool covers(size_t begin, size_t end) const;
  bool empty() const { return ranges_.empty(); }
  bool touches(size_t begin, size_t end) const;  // some byte of [begin, end) is trusted
  // The first border of a range after `from`; `end` if there is none before it.
  size_t next_border(size_t from, size_t end) const;

 private:
  std::vector<std::pair<size_t, size_t>> ranges_;
};

// Finds a set of added tokens, the leftmost first and of those at the same place the longest.
// Threads: const methods from any number of threads at once.
class AddedTokenMatcher {
 public:
  struct Match {
    size_t begin = 0, end = 0;  // bytes of the text, white space taken along included
    int32_t id = -1;            // -1: none
  };

  // How far a text has been searched. White space that a token takes along may itself be one: it is found all the same, as
  // by Hugging Face's tokenizers, and what is behind it is no longer taken.
  struct Place {
    size_t from = 0;        // the next token begins here or later
    size_t taken = 0;       // what is before belongs to earlier matches
    size_t spaces_end = 0;  // of the white space that was last taken along behind a token
  };

  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  // The next token after `place`, of a special token only where `trusted` covers it; text is valid UTF-8 and begins at
  // byte `offset` of what `trusted` speaks of. Moves `place` on.
  Match next(std::string_view text, Place& place, const TrustedRanges& trusted, size_t offset = 0) const;
  bool empty() const { return tokens_.empty(); }
  bool has_special() const { return has_special_; }

 private:
  std::vector<AddedToken> tokens_;        // by first byte, the longest first
  std::array<uint32_t, 257> begin_of_{};  // tokens that begin with byte b: [begin_of_[b], begin_of_[b + 1])
  bool has_special_ = false;
  int sole_first_byte_ = -1;  // if all tokens begin with the same byte: that byte
};

}  // namespace lorikeet::model
