#include "model/tokenizer/pre_tokenizer.h"

#include <glog/logging.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <string>

namespace lorikeet::model {
namespace {

// kQwenExpression with \s spelt out as Unicode's White_Space, which is what the reference implementations mean by it:
// PCRE2's own \s also takes U+180E.
std::string expression_for_pcre2() {
  std::string expression;
  constexpr std::string_view kQwen = PreTokenizer::kQwenExpression;
  bool in_class = false;
  for (size_t i = 0; i < kQwen.size(); ++i) {
    const std::string_view rest = kQwen.substr(i);
    if (rest.starts_with("\\s") || rest.starts_with("\\S")) {
      constexpr std::string_view kSpaces = R"(\t-\r\x{85}\p{Z})";
      const bool negated = rest[1] == 'S';
      CHECK(!(in_class && negated));
      expression += in_class ? std::string(kSpaces) : std::string(negated ? "[^" : "[") + std::string(kSpaces) + "]";
      ++i;
      continue;
    }
    if (rest[0] == '[') in_class = true;
    if (rest[0] == ']') in_class = false;
    expression += rest[0];
  }
  return expression;
}

struct Free {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
  void operator()(pcre2_jit_stack* stack) const { pcre2_jit_stack_free(stack); }
};
template <class T>
using Owned = std::unique_ptr<T, Free>;

}  // namespace

struct PreTokenizer::Impl {
  Owned<pcre2_code> code;
  bool jit = false;  // false where the system forbids executable memory
};

struct PieceMatcher::Impl {
  const pcre2_code* code;
  bool jit;
  Owned<pcre2_match_data> data;
  Owned<pcre2_match_context> context;
  Owned<pcre2_jit_stack> stack;
};

PreTokenizer::PreTokenizer() : impl_(std::make_unique<Impl>()) {
  const std::string expression = expression_for_pcre2();
  int error = 0;
  PCRE2_SIZE offset = 0;
  // Every character begins some alternative, so a search never has to skip ahead: anchored, without start
  // optimisations.
  impl_->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED | PCRE2_NO_START_OPTIMIZE, &error, &offset,
                                  nullptr));
  CHECK(impl_->code) << "PCRE2 error " << error << " at " << offset << " of " << expression;
  impl_->jit = pcre2_jit_compile(impl_->code.get(), PCRE2_JIT_COMPLETE) == 0;
}

PreTokenizer::~PreTokenizer() = default;

PieceMatcher PreTokenizer::matcher() const {
  auto impl = std::make_unique<PieceMatcher::Impl>();
  impl->code = impl_->code.get();
  impl->jit = impl_->jit;
  impl->data.reset(pcre2_match_data_create(1, nullptr));
  impl->context.reset(pcre2_match_context_create(nullptr));
  CHECK(impl->data && impl->context);
  if (impl->jit) {
    impl->stack.reset(pcre2_jit_stack_create(32 << 10, 1 << 20, nullptr));
    CHECK(impl->stack);
    pcre2_jit_stack_assign(impl->context.get(), nullptr, impl->stack.get());
  }
  return PieceMatcher(std::move(impl));
}

PieceMatcher::PieceMatcher(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PieceMatcher::PieceMatcher(PieceMatcher&&) noexcept = default;
PieceMatcher::~PieceMatcher() = default;

size_t PieceMatcher::end_of_piece(std::string_view text, size_t begin) {
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  // Neither call validates the subject again: pcre2_jit_match never does.
  int found = PCRE2_ERROR_JIT_STACKLIMIT;
  if (impl_->jit) {
    found = pcre2_jit_match(impl_->code, subject, text.size(), begin, 0, impl_->data.get(), impl_->context.get());
  }
  if (found < 0) {
    found = pcre2_match(impl_->code, subject, text.size(), begin, PCRE2_NO_UTF_CHECK, impl_->data.get(),
                        impl_->context.get());
  }
  // Past PCRE2's limits (seen for no text so far) the rest is one piece, which decodes to the same text.
  if (found < 0) return text.size();
  return pcre2_get_ovector_pointer(impl_->data.get())[1];
}

}  // namespace lorikeet::model
