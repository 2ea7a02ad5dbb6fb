// The threads that read adapters for the adapter cache. Looks at files have threads of their own, so that a request for
// a staged adapter never waits behind the loading of another one. An adapter whose disk does not answer holds up nobody
// else: after a time its requests are told so, and its thread is left behind (actors/head/blocking_pool.h).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "actors/head/adapter_directories.h"
#include "actors/head/blocking_pool.h"
#include "actors/head/file_stamp.h"
#include "actors/head/staged_adapter.h"
#include "actors/wire/test_hooks.h"
#include "model/checkpoint/shard_plan.h"

namespace lorikeet::actors {

// Where the adapter cache has adapters from. Threads: any. The answers come in any order.
class AdapterSource {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  struct Checked {
    std::string name;
    FileStamp stamp;
    std::string error = {};  // not empty: the files could not be looked at
  };
  struct Staged {
    std::string name;
    FileStamp stamp;  // of the files that were read
    Result<std::shared_ptr<const StagedAdapter>> adapter;
  };
  struct Located {
    std::string key;
    tl::expected<std::string, AdapterRefusal> directory;
  };
  // Called on the source's threads, or from check(), read(), locate() and tick().
  struct Callbacks {
    std::function<void(Checked)> checked;
    std::function<void(Staged)> staged;
    std::function<void(Located)> located;
  };

  virtual ~AdapterSource() = default;
  // `name` is the key of the adapter's work (actors/head/adapter_key.h): at most one call for a key is under way.
  virtual void check(std::string name, std::string dir) = 0;                      // gives Checked
  virtual void read(std::string name, std::string dir, uint64_t file_bytes) = 0;  // gives Staged
  virtual void locate(std::string key, std::string path) = 0;                     // gives Located, of a client's path
  virtual bool cancel(const std::string& name) = 0;          // true: its check or read had not begun and never will
  virtual void run(std::function<void()> work) = 0;          // anything else that would hold up an actor
  virtual void tick(TimePoint now) = 0;                      // about once a second: deadlines
  virtual std::vector<std::string> left_behind() const = 0;  // names whose disks have not answered, and still do not
};

class AdapterReader final : public AdapterSource {
 public:
  // What a disk may take. Reading has more time where there is more to read.
  struct Patience {
    std::chrono::milliseconds check{15'000};
    std::chrono::milliseconds read{30'000};
    uint64_t bytes_per_second = 20'000'000;
  };

  AdapterReader(model::ShardPlan plan, int32_t max_lora_rank, TestHooks hooks, Callbacks callbacks);
  // `directories`: where the adapters of names that were loaded at run time must be.
  // `layout`: of the ranks' slots. `bytes`: bound on the memory of adapters that are being read and packed at a time, but
  // one adapter may always be read; 0: no bound. The same bound holds for adapters that wait to be freed.
  AdapterReader(model::ShardPlan plan, int32_t max_lora_rank, TestHooks hooks, Callbacks callbacks, Patience patience,
                AdapterDirectories directories = {}, model::SliceLayout layout = model::SliceLayout::cpu_f32,
                uint64_t bytes = 0);
  ~AdapterReader() override;  // waits for the reads that run, as long as they may take
  AdapterReader(const AdapterReader&) = delete;
  AdapterReader& operator=(const AdapterReader&) = delete;

  void check(std::string name, std::string dir) override;
  void read(std::string name, std::string dir, uint64_t file_bytes) override;
  void locate(std::string key, std::string path) override;
  bool cancel(const std::string& name) override;
  void run(std::function<void()> work) override;
  void tick(TimePoint now) override;
  std::vector<std::string> left_behind() const override;

 private:
  struct Context;

  void prepare_spare(uint64_t bytes);

  const Patience patience_;
  const Callbacks callbacks_;
  std::shared_ptr<Context> context_;  // shared with the threads, which may outlive the reader
  BlockingPool checks_, reads_;
};

}  // namespace lorikeet::actors
