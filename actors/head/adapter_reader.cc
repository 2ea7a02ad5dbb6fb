#include "actors/head/adapter_reader.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <thread>
#include <utility>

#include "actors/head/adapter_key.h"
#include "actors/head/deferred_free.h"
#include "actors/head/staging_memory.h"
#include "kernels/base/thread_turns.h"

namespace lorikeet::actors {
namespace {

constexpr BlockingPool::Limits kChecks{4, 16, std::chrono::milliseconds(200)};
constexpr size_t kFewestReadThreads = 2;  // one slow disk does not hold up all others
constexpr size_t kMostReadThreads = 8;
constexpr size_t kMostThreads = 16;  // that work at adapters at once
constexpr size_t kMostBlockedReads = 16;
constexpr int kSpareThreads = 4;                            // that make memory ready while the last adapter is loaded
constexpr uint64_t kMostSpareBytes = uint64_t{512} << 20;   // where there is no other bound
constexpr uint64_t kMostEndingBytes = uint64_t{512} << 20;  // likewise
constexpr int kReadAttempts = 3;                            // files that change while they are read
constexpr std::chrono::hours kNoLimit{24};

// Reading is hashing and packing as much as waiting for the disk. Ranks on the CPU need the cores, too; ranks on devices few.
size_t cores_for_reading(model::SliceLayout layout) {
  const size_t cores = std::thread::hardware_concurrency();
  const size_t left = layout == model::SliceLayout::cpu_f32 ? cores / 2 : cores * 3 / 4;
  return std::clamp<size_t>(left, 1, kMostThreads);
}

BlockingPool::Limits read_limits(model::SliceLayout layout, uint64_t bytes) {
  BlockingPool::Limits limits;
  limits.threads = std::clamp(cores_for_reading(layout), kFewestReadThreads, kMostReadThreads);
  limits.blocked_threads = kMostBlockedReads;
  limits.held_bytes = bytes;
  return limits;
}

// The spare memory leaves room in the budget for what is being read: most adapters are packed without a copy of their
// files.
uint64_t most_spare_bytes(uint64_t bytes) {
  return bytes > 0 ? std::min(bytes / 2, kMostSpareBytes) : kMostSpareBytes;
}

// Bytes of an adapter while it is read and packed: its files, and the slices, which are twice as wide on the CPU.
uint64_t bytes_while_read(uint64_t file_bytes, model::SliceLayout layout) {
  constexpr uint64_t kMost = uint64_t{1} << 60;  // no file is larger, whatever its header says
  return std::min(file_bytes, kMost) * (layout == model::SliceLayout::cpu_f32 ? 3 : 2);
}

}  // namespace

struct AdapterReader::Context {
  const model::ShardPlan plan;
  const int32_t max_lora_rank;
  const TestHooks hooks;
  const AdapterDirectories directories;
  const model::SliceLayout layout;
  std::atomic<size_t> reading{0};
  SpareStagingMemory spare;
  const std::shared_ptr<DeferredFree> ends;  // shared with the adapters, which may outlive the reader
  std::mutex mutex;
  std::condition_variable stop_wake;
  bool stop = false;

  Context(model::ShardPlan given, int32_t rank, TestHooks test_hooks, AdapterDirectories allowed,
          model::SliceLayout of_slots, uint64_t bytes)
      : plan(std::move(given)),
        max_lora_rank(rank),
        hooks(std::move(test_hooks)),
        directories(std::move(allowed)),
        layout(of_slots),
        spare(most_spare_bytes(bytes)),
        ends(std::make_shared<DeferredFree>(bytes > 0 ? bytes : kMostEndingBytes, in_background())) {}

  bool in_background() const { return layout != model::SliceLayout::cpu_f32; }

  // Does not reveal to a client whether a file exists outside of the directories that clients may use.
  Checked look(const std::string& name, const std::string& dir) {
    Checked found{name, stamp_of(dir)};
    if (!found.stamp.is_missing() || !is_loaded_key(name)) return found;
    const auto place = directories.locate(name_in_key(name), dir);
    if (!place && place.error().code == "forbidden") return {name, {}, place.error().message};
    return found;
  }

  // With ranks on devices, readers run at low priority so as not to delay the threads that plan steps. With ranks on the
  // CPU they would never get a core.
  void give_way() const {
    if (in_background()) kernels::work_in_background();
  }

  // Returning its pages takes as long as packing them, and an actor may drop the last reference: so it is freed on a thread
  // of its own, unless too much waits there.
  std::shared_ptr<const StagedAdapter> ended_apart(std::shared_ptr<const StagedAdapter> adapter) const {
    const StagedAdapter* const at = adapter.get();
    return {at, [owner = std::move(adapter), ends = ends](const StagedAdapter* staged) mutable {
              ends->free(std::move(owner), staged->bytes);
            }};
  }

  // One adapter alone is read by as many threads as there are cores for it; several share them.
  Staged stage(const std::string& name, const std::string& dir) {
    const size_t readers = ++reading;
    Staged staged = stage(name, dir, static_cast<int>(std::max<size_t>(1, cores_for_reading(layout) / readers)));
    --reading;
    if (staged.adapter) staged.adapter = ended_apart(*std::move(staged.adapter));
    return staged;
  }

  Staged stage(const std::string& name, const std::string& dir, int threads) {
    for (int attempt = 1;; ++attempt) {
      // Resolved once: where DIR is a link to the current version, both files are then read from the same version.
      std::error_code error;
      std::filesystem::path version = std::filesystem::canonical(dir, error);
      if (error) version = dir;
      // Links may have been moved since a client named the directory, and may be moved now: the place of the opened files is
      // checked again.
      std::vector<std::string> within;
      const auto locate = [&] { return directories.locate(name_in_key(name), dir); };
      if (is_loaded_key(name)) {
        // Nothing is revealed about files elsewhere, neither what they are nor their stamps.
        if (auto ok = locate(); !ok) return {name, {}, fail("{}", ok.error().message)};
        within = directories.present_roots();
        if (within.empty()) return {name, {}, fail("{}: no --lora-dir is there", dir)};
      }
      const FileStamp before = stamp_of(version);
      if (!before.config.regular || !before.tensors.regular) {  // opening a pipe waits for its writer
        return {name, before, fail("{}: the adapter's files are not regular files", dir)};
      }
      auto adapter = stage_adapter(version, plan, max_lora_rank, within, {layout, threads, true, &spare});
      if (!adapter && is_loaded_key(name)) {  // perhaps since a link was moved
        if (auto ok = locate(); !ok) return {name, {}, fail("{}", ok.error().message)};
      }
      if (stamp_of(version) == before) return {name, before, std::move(adapter)};
      if (attempt == kReadAttempts) return {name, before, fail("{}: the files change while they are read", dir)};
    }
  }

  // The test hooks "hold_adapter_load=NAME,release_file=PATH" (or hold_adapter_check): one adapter's reading, or the
  // look at its files, waits until the file is there.
  void hold(const std::string& hook, const std::string& name) {
    if (hooks.value_of(hook) != name_in_key(name)) return;
    const std::filesystem::path release = hooks.value_of("release_file").value_or("");
    std::unique_lock lock(mutex);
    std::error_code error;
    while (!stop && !std::filesystem::exists(release, error)) {
      stop_wake.wait_for(lock, std::chrono::milliseconds(20));
    }
  }
};

AdapterReader::AdapterReader(model::ShardPlan plan, int32_t max_lora_rank, TestHooks hooks, Callbacks callbacks)
    : AdapterReader(std::move(plan), max_lora_rank, std::move(hooks), std::move(callbacks), Patience()) {}

AdapterReader::AdapterReader(model::ShardPlan plan, int32_t max_lora_rank, TestHooks hooks, Callbacks callbacks,
                             Patience patience, AdapterDirectories directories, model::SliceLayout layout,
                             uint64_t bytes)
    : patience_(patience),
      callbacks_(std::move(callbacks)),
      context_(std::make_shared<Context>(std::move(plan), max_lora_rank, std::move(hooks), std::move(directories),
                                         layout, bytes)),
      checks_(kChecks),
      reads_(read_limits(layout, bytes)) {}

AdapterReader::~AdapterReader() {
  const std::lock_guard lock(context_->mutex);
  context_->stop = true;
  context_->stop_wake.notify_all();
}

void AdapterReader::check(std::string name, std::string dir) {
  BlockingPool::Job job;
  job.key = name;
  job.limit = patience_.check;
  // Refers to the reader only in calls that are made while it lives.
  job.call = [this, context = context_, name, dir]() -> BlockingPool::Finish {
    context->hold("hold_adapter_check", name);
    return [this, found = context->look(name, dir)] { callbacks_.checked(found); };
  };
  job.give_up = [this, name, dir](const std::string& why) {
    callbacks_.checked({name, {}, fmt::format("{}: looking at the adapter's files: {}", dir, why)});
  };
  checks_.submit(std::move(job));
}

void AdapterReader::read(std::string name, std::string dir, uint64_t file_bytes) {
  BlockingPool::Job job;
  job.key = name;
  job.limit = patience_.read + std::chrono::milliseconds(1000 * (file_bytes / patience_.bytes_per_second));
  job.bytes = bytes_while_read(file_bytes, context_->layout);
  job.call = [this, context = context_, name, dir]() -> BlockingPool::Finish {
    context->give_way();
    context->hold("hold_adapter_load", name);
    return [this, staged = context->stage(name, dir)]() mutable {
      const uint64_t bytes = staged.adapter ? (*staged.adapter)->region.bytes().size() : 0;
      callbacks_.staged(std::move(staged));
      prepare_spare(bytes);
    };
  };
  job.give_up = [this, name, dir](const std::string& why) {
    callbacks_.staged({name, {}, fail("{}: reading the adapter: {}", dir, why)});
  };
  reads_.submit(std::move(job));
}

// A job of its own, so that this one's memory and thread are free for the next adapter.
void AdapterReader::prepare_spare(uint64_t bytes) {
  if (bytes == 0) return;
  BlockingPool::Job job;
  job.limit = patience_.read;
  job.call = [context = context_, bytes]() -> BlockingPool::Finish {
    context->give_way();
    context->spare.prepare(bytes, kSpareThreads);
    return [] {};
  };
  job.give_up = [](const std::string&) {};  // then the next one makes its own
  reads_.submit(std::move(job));
}

void AdapterReader::locate(std::string key, std::string path) {
  BlockingPool::Job job;
  job.key = key;
  job.limit = patience_.check;
  job.call = [this, context = context_, key, path]() -> BlockingPool::Finish {
    return [this, found = Located{key, context->directories.locate(name_in_key(key), path)}] {
      callbacks_.located(found);
    };
  };
  job.give_up = [this, key, path](const std::string& why) {
    const AdapterRefusal refusal{"adapter_failed", fmt::format("{}: looking for the adapter: {}", path, why)};
    callbacks_.located({key, tl::unexpected(refusal)});
  };
  checks_.submit(std::move(job));
}

bool AdapterReader::cancel(const std::string& name) {
  return checks_.cancel(name) || reads_.cancel(name);
}

void AdapterReader::run(std::function<void()> work) {
  BlockingPool::Job job;
  job.limit = kNoLimit;
  job.call = [work = std::move(work)]() -> BlockingPool::Finish {
    work();
    return [] {};
  };
  job.give_up = [](const std::string&) {};
  reads_.submit(std::move(job));
}

void AdapterReader::tick(TimePoint now) {
  checks_.tick(now);
  reads_.tick(now);
}

std::vector<std::string> AdapterReader::left_behind() const {
  std::vector<std::string> names = checks_.left_behind();
  for (std::string& name : reads_.left_behind()) names.push_back(std::move(name));
  return names;
}

}  // namespace lorikeet::actors
