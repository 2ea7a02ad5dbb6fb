// What the evaluator undoes when a block ends, errors included.
#pragma once

#include "model/chat/jinja/evaluator.h"

namespace lorikeet::model::jinja {

template <class F>
class AtExit {
 public:
  explicit AtExit(const F& f) : f_(f) {}
  ~AtExit() { f_(); }
  AtExit(const AtExit&) = delete;
  AtExit& operator=(const AtExit&) = delete;

 private:
  const F& f_;
};

// A scope of its own inside of `parent`, the current one while it lives.
class Evaluator::ScopeGuard {
 public:
  enum class Kind : uint8_t { block, macro };

  ScopeGuard(Evaluator& evaluator, Scope* parent, Kind kind = Kind::block)
      : evaluator_(evaluator), kind_(kind), outer_(evaluator.scope_), scope_(evaluator.open_scope(parent)) {
    evaluator_.scope_ = &scope_;
  }
  ~ScopeGuard() {
    evaluator_.scope_ = outer_;
    evaluator_.close_scope(scope_, kind_ == Kind::macro);
  }
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;

 private:
  Evaluator& evaluator_;
  const Kind kind_;
  Scope* const outer_;
  Scope& scope_;
};

class Evaluator::DepthGuard {
 public:
  DepthGuard(Evaluator& evaluator, int line) : evaluator_(evaluator) {
    if (++evaluator_.depth_ > evaluator_.limits_.max_depth) {
      --evaluator_.depth_;
      raise("line {}: nested deeper than {} levels", line, evaluator_.limits_.max_depth);
    }
  }
  ~DepthGuard() { --evaluator_.depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  Evaluator& evaluator_;
};

}  // namespace lorikeet::model::jinja
