// The threads that read adapters for the adapter cache. Looking at an adapter's files has a thread of its own, so that
// a request for a staged adapter never waits behind the loading of another one.
#pragma once

#include <array>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "actors/head/staged_adapter.h"
#include "actors/wire/test_hooks.h"
#include "model/checkpoint/shard_plan.h"

namespace lorikeet::actors {

// Where the adapter cache has adapters from. Threads: any. The answers come in any order.
class AdapterSource {
 public:
  struct Checked {
    std::string name;
    FileStamp stamp;
  };
  struct Staged {
    std::string name;
    FileStamp stamp;  // of the files that were read
    Result<std::shared_ptr<const StagedAdapter>> adapter;
  };
  // Called on the source's threads.
  struct Callbacks {
    std::function<void(Checked)> checked;
    std::function<void(Staged)> staged;
  };

  virtual ~AdapterSource() = default;
  virtual void check(std::string name, std::string dir) = 0;  // gives Checked
  virtual void read(std::string name, std::string dir) = 0;   // gives Staged
  virtual void run(std::function<void()> work) = 0;           // anything else that would hold up an actor
};

class AdapterReader final : public AdapterSource {
 public:
  AdapterReader(model::ShardPlan plan, int32_t max_lora_rank, TestHooks hooks, Callbacks callbacks);
  ~AdapterReader() override;  // waits for the reads that run
  AdapterReader(const AdapterReader&) = delete;
  AdapterReader& operator=(const AdapterReader&) = delete;

  void check(std::string name, std::string dir) override;
  void read(std::string name, std::string dir) override;
  void run(std::function<void()> work) override;

 private:
  struct Queue {
    std::deque<std::function<void()>> jobs;
    std::condition_variable wake;
  };

  void serve(Queue& queue);
  void push(Queue& queue, std::function<void()> job);
  Staged stage(const std::string& name, const std::string& dir) const;
  void hold(const std::string& name);

  const model::ShardPlan plan_;
  const int32_t max_lora_rank_;
  const TestHooks hooks_;
  const Callbacks callbacks_;
  std::mutex mutex_;
  std::condition_variable stop_wake_;
  bool stop_ = false;
  Queue checks_, reads_;
  std::vector<std::thread> threads_;
};

}  // namespace lorikeet::actors
