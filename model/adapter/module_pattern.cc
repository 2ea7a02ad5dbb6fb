#include "model/adapter/module_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>

#include "kernels/base/printable.h"

namespace lorikeet::model {
namespace {

constexpr size_t kMaxExpression = 16384;  // bytes; a list of all module names as one expression fits
constexpr uint32_t kMaxSteps = 200'000;

std::string text_of(int code) {
  std::array<PCRE2_UCHAR, 160> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

// Whether Python takes what begins at `at` for {,n}, or {,}: anything else is text.
bool has_no_lower_bound(std::string_view expression, size_t at) {
  if (expression.substr(at, 2) != "{,") return false;
  const size_t end = expression.find_first_not_of("0123456789", at + 2);
  return end != std::string_view::npos && expression[end] == '}';
}

// Python's {,n} is {0,n}, which PCRE2 takes for text before 10.43.
std::string with_lower_bounds(std::string_view expression) {
  std::string text;
  bool in_class = false;
  for (size_t i = 0; i < expression.size(); ++i) {
    const char c = expression[i];
    text += c;
    if (c == '\\' && i + 1 < expression.size()) {
      text += expression[++i];
    } else if (c == '[' && !in_class) {
      in_class = true;
      if (expression.substr(i + 1, 1) == "^") text += expression[++i];
      if (expression.substr(i + 1, 1) == "]") text += expression[++i];  // the first one is a character
    } else if (c == ']') {
      in_class = false;
    } else if (!in_class && has_no_lower_bound(expression, i)) {
      text += '0';
    }
  }
  return text;
}

}  // namespace

struct ModulePattern::Code {
  explicit Code(pcre2_code* pattern) : code(pattern) {}
  ~Code() { pcre2_code_free(code); }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;

  pcre2_code* code;
};

Result<ModulePattern> ModulePattern::compile(std::string_view expression, std::string_view whole) {
  if (expression.size() > kMaxExpression) {
    return fail("an expression of {} bytes, at most {} are read", expression.size(), kMaxExpression);
  }
  int error = 0;
  PCRE2_SIZE offset = 0;
  // Python's $ also matches before a final newline; module names have none, so DOLLAR_ENDONLY changes nothing there.
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(whole.data()), whole.size(),
                                   PCRE2_NEVER_BACKSLASH_C | PCRE2_DOLLAR_ENDONLY, &error, &offset, nullptr);
  if (code == nullptr) return fail("\"{}\" is not a regular expression: {}", printable(expression), text_of(error));
  ModulePattern pattern;
  pattern.expression_ = expression;
  pattern.code_ = std::make_shared<Code>(code);
  return pattern;
}

Result<ModulePattern> ModulePattern::full(std::string_view expression) {
  return compile(expression, fmt::format("\\A(?:{})\\z", with_lower_bounds(expression)));
}

Result<ModulePattern> ModulePattern::suffix(std::string_view expression) {
  return compile(expression, fmt::format("\\A(.*\\.)?({})\\z", with_lower_bounds(expression)));
}

Result<bool> ModulePattern::matches(std::string_view name) const {
  pcre2_match_context* limits = pcre2_match_context_create(nullptr);
  pcre2_match_data* data = pcre2_match_data_create_from_pattern(code_->code, nullptr);
  pcre2_set_match_limit(limits, kMaxSteps);
  pcre2_set_depth_limit(limits, kMaxSteps);
  pcre2_set_heap_limit(limits, 16 * 1024);  // KiB
  const int found =
      pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0, 0, data, limits);
  pcre2_match_data_free(data);
  pcre2_match_context_free(limits);
  if (found >= 0) return true;
  if (found == PCRE2_ERROR_NOMATCH) return false;
  return fail("\"{}\" cannot be matched with {}: {}", printable(expression_), printable(name), text_of(found));
}

}  // namespace lorikeet::model
