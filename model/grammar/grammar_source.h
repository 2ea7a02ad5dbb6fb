// A compiler that is made when the first grammar is asked for: most servers never are, and to make one takes a moment.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "model/grammar/grammar.h"

namespace lorikeet::model {

// Threads: any.
class GrammarSource {
 public:
  using Make = std::function<Result<std::shared_ptr<GrammarCompiler>>()>;

  explicit GrammarSource(Make make) : make_(std::move(make)) {}

  Result<std::shared_ptr<const CompiledGrammar>> compile(const GrammarSpec& spec) {
    if (auto ok = check_grammar(spec); !ok) return tl::unexpected(ok.error());
    {
      const std::lock_guard lock(mutex_);
      if (!compiler_) compiler_ = make_();
    }
    if (!*compiler_) return tl::unexpected(compiler_->error());
    return (**compiler_)->compile(spec);
  }

 private:
  std::mutex mutex_;
  const Make make_;
  std::optional<Result<std::shared_ptr<GrammarCompiler>>> compiler_;  // kept, error or not
};

}  // namespace lorikeet::model
