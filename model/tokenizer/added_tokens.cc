#include "model/tokenizer/added_tokens.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>

#include "model/tokenizer/utf8.h"

namespace lorikeet::model {
namespace {

bool is_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return c == 0x85 || category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
         category == UTF8PROC_CATEGORY_ZP;
}

bool is_word(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

// The last character's first byte; text is valid UTF-8 and not empty.
size_t begin_of_last(std::string_view text) {
  size_t i = text.size() - 1;
  while ((static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) --i;
  return i;
}

char32_t last_of(std::string_view text) {
  return utf8_head(text.substr(begin_of_last(text))).code_point;
}

}  // namespace

void TrustedRanges::add(size_t begin, size_t end) {
  if (begin == end) return;
  if (!ranges_.empty() && ranges_.back().second == begin) {
    ranges_.back().second = end;
  } else {
    ranges_.emplace_back(begin, end);
  }
}

bool TrustedRanges::covers(size_t begin, size_t end) const {
  const auto after =
      std::partition_point(ranges_.begin(), ranges_.end(), [&](const auto& r) { return r.first <= begin; });
  return after != ranges_.begin() && std::prev(after)->second >= end;
}

bool TrustedRanges::touches(size_t begin, size_t end) const {
  const auto first =
      std::partition_point(ranges_.begin(), ranges_.end(), [&](const auto& r) { return r.second <= begin; });
  return first != ranges_.end() && first->first < end;
}

size_t TrustedRanges::next_border(size_t from, size_t end) const {
  const auto next =
      std::partition_point(ranges_.begin(), ranges_.end(), [&](const auto& r) { return r.second <= from; });
  if (next == ranges_.end()) return end;
  return std::min(end, next->first > from ? next->first : next->second);
}

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  auto first_byte = [](const AddedToken& token) { return static_cast<unsigned char>(token.content[0]); };
  std::sort(tokens_.begin(), tokens_.end(), [&](const AddedToken& a, const AddedToken& b) {
    if (first_byte(a) != first_byte(b)) return first_byte(a) < first_byte(b);
    return a.content.size() > b.content.size();
  });
  for (const AddedToken& token : tokens_) {
    ++begin_of_[first_byte(token) + 1];
    has_special_ = has_special_ || token.special;
  }
  for (size_t byte = 0; byte < 256; ++byte) begin_of_[byte + 1] += begin_of_[byte];
  if (!tokens_.empty() && first_byte(tokens_.front()) == first_byte(tokens_.back())) {
    sole_first_byte_ = first_byte(tokens_.front());
  }
}

AddedTokenMatcher::Match AddedTokenMatcher::next(std::string_view text, Place& place, const TrustedRanges& trusted,
                                                 size_t offset) const {
  if (tokens_.empty()) return {};
  for (size_t at = place.from; at < text.size();) {
    if (sole_first_byte_ >= 0) {
      const void* hit = std::memchr(text.data() + at, sole_first_byte_, text.size() - at);
      if (!hit) return {};
      at = static_cast<size_t>(static_cast<const char*>(hit) - text.data());
    }
    const auto byte = static_cast<unsigned char>(text[at]);
    const AddedToken* found = nullptr;
    for (uint32_t i = begin_of_[byte]; i < begin_of_[byte + 1] && !found; ++i) {
      if (!text.substr(at).starts_with(tokens_[i].content)) continue;
      const size_t begin = offset + at;
      if (!tokens_[i].special || trusted.covers(begin, begin + tokens_[i].content.size())) found = &tokens_[i];
    }
    if (!found) {
      ++at;
      continue;
    }
    const size_t token_end = at + found->content.size();
    size_t begin = at, end = token_end;
    if (found->single_word) {
      const bool joined_left = begin > 0 && is_word(last_of(text.substr(0, begin)));
      const bool joined_right = end < text.size() && is_word(utf8_head(text.substr(end)).code_point);
      if (joined_left || joined_right) {
        at = end;
        continue;
      }
    }
    while (found->lstrip && begin > place.taken && is_space(last_of(text.substr(0, begin)))) {
      begin = begin_of_last(text.substr(0, begin));
    }
    if (found->rstrip && end < place.spaces_end) end = place.spaces_end;  // it stands in white space that is known
    while (found->rstrip && end < text.size()) {
      const Utf8Head head = utf8_head(text.substr(end));
      if (!is_space(head.code_point)) break;
      end += head.length;
    }
    if (found->rstrip) place.spaces_end = end;
    if (found->lstrip && place.taken > begin) {  // begins behind what is taken; nothing may be left of it
      if (place.taken >= end) {
        at = token_end;
        continue;
      }
      begin = place.taken;
    }
    place.from = token_end;
    place.taken = end;
    return {begin, end, found->id};
  }
  return {};
}

}  // namespace lorikeet::model
