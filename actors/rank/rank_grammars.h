// The grammars of a rank's sequences, by digest: compiled on a thread of their own as they arrive, found by the thread
// that runs the steps.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>

#include "actors/wire/wire.h"
#include "actors/wire/work_queue.h"
#include "kernels/base/error.h"
#include "model/grammar/grammar_source.h"

namespace lorikeet::actors {

// Threads: every method from any.
class RankGrammars {
 public:
  using Compiled = std::shared_ptr<const model::CompiledGrammar>;
  // Called on the thread that compiles.
  using Report = std::function<void(const GrammarCompiled&, uint64_t epoch)>;

  // source: may be null; nothing can be compiled then.
  RankGrammars(std::shared_ptr<model::GrammarSource> source, Report report);
  ~RankGrammars();  // waits for what is being compiled
  RankGrammars(const RankGrammars&) = delete;
  RankGrammars& operator=(const RankGrammars&) = delete;

  // A grammar that the head has sent. Errors: more waits than was agreed.
  Result<void> add(GrammarText text, uint64_t epoch);
  void drop(const std::string& digest);
  void forget_all();  // the epoch is over

  // Null where there is none, or it could not be compiled. The head sends plans that need a grammar after all ranks have it,
  // so there is nothing to wait for, except for sequences that start again after a loss: for those this waits until the
  // grammar is compiled, kMaxWait at most.
  Compiled find(const std::string& digest);

  static constexpr std::chrono::milliseconds kMaxWait{10'000};

 private:
  struct Entry {
    uint64_t number = 0;  // of the call that brought it
    bool done = false;
    Compiled grammar;  // null: it could not be compiled
  };
  struct Work {
    uint64_t number = 0;
    uint64_t epoch = 0;
    GrammarText text;
  };

  void run();
  Result<Compiled> compile(const GrammarText& text);

  const std::shared_ptr<model::GrammarSource> source_;
  const Report report_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable done_;
  std::unordered_map<std::string, Entry> entries_;
  uint64_t added_ = 0;
  WorkQueue<Work> queue_;
  std::thread thread_;
};

}  // namespace lorikeet::actors
