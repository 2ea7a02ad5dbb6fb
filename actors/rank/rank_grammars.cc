#include "actors/rank/rank_grammars.h"

#include <algorithm>
#include <utility>

namespace lorikeet::actors {

RankGrammars::RankGrammars(std::shared_ptr<model::GrammarSource> source, Report report)
    : source_(std::move(source)),
      report_(std::move(report)),
      queue_(kMaxQueuedGrammarBytes),
      thread_([this] { run(); }) {}

RankGrammars::~RankGrammars() {
  queue_.close();
  thread_.join();
}

Result<void> RankGrammars::add(GrammarText text, uint64_t epoch) {
  uint64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    number = ++added_;
    entries_[text.digest] = {number, false, nullptr};
  }
  const size_t bytes = text.digest.size() + text.text.size();
  if (queue_.push({number, epoch, std::move(text)}, bytes) || queue_.closed()) return {};
  return fail("the head sends more grammars than was agreed");
}

void RankGrammars::drop(const std::string& digest) {
  {
    const std::lock_guard lock(mutex_);
    entries_.erase(digest);
  }
  done_.notify_all();  // nobody waits for what does not come
}

void RankGrammars::forget_all() {
  {
    const std::lock_guard lock(mutex_);
    entries_.clear();
  }
  done_.notify_all();
}

RankGrammars::Compiled RankGrammars::find(const std::string& digest) {
  std::unique_lock lock(mutex_);
  const auto settled = [&] {
    const auto found = entries_.find(digest);
    return found == entries_.end() || found->second.done;
  };
  if (!done_.wait_for(lock, kMaxWait, settled)) return nullptr;
  const auto found = entries_.find(digest);
  return found == entries_.end() ? nullptr : found->second.grammar;
}

void RankGrammars::run() {
  while (const auto work = queue_.pop()) {
    {  // a grammar that was dropped meanwhile is not compiled, and not answered
      const std::lock_guard lock(mutex_);
      const auto found = entries_.find(work->text.digest);
      if (found == entries_.end() || found->second.number != work->number) continue;
    }
    auto compiled = compile(work->text);
    GrammarCompiled answer{work->text.digest, compiled ? (*compiled)->bytes() : 0,
                           compiled ? "" : compiled.error().message};
    {
      const std::lock_guard lock(mutex_);
      const auto found = entries_.find(work->text.digest);
      if (found == entries_.end() || found->second.number != work->number) continue;
      found->second.done = true;
      if (compiled) found->second.grammar = *std::move(compiled);
    }
    done_.notify_all();
    report_(answer, work->epoch);
  }
}

Result<RankGrammars::Compiled> RankGrammars::compile(const GrammarText& text) {
  if (source_ == nullptr) return fail("there are no grammars here");
  const int32_t kind = std::clamp(text.kind, 0, model::kGrammarKinds - 1);
  return source_->compile({static_cast<model::GrammarKind>(kind), text.text});
}

}  // namespace lorikeet::actors
