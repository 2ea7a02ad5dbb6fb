#include "actors/supervisor/rank_fetches.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace lorikeet::actors {
namespace {

double mebibytes(uint64_t bytes) {
  return static_cast<double>(bytes) / (1 << 20);
}

// In steps, so that a line of it is news.
std::string share_of(uint64_t done, uint64_t total) {
  constexpr uint64_t kStep = 10;  // per cent
  const uint64_t percent = total == 0 ? 0 : done * (100 / kStep) / total * kStep;
  return fmt::format("{} % of {:.1f} MiB", percent, mebibytes(total));
}

}  // namespace

RankFetches::RankFetches(CheckpointFetcher& fetcher, CheckpointFetcher::Dial dial, Callbacks callbacks)
    : fetcher_(fetcher), dial_(std::move(dial)), callbacks_(std::move(callbacks)), thread_([this] { run(); }) {}

RankFetches::~RankFetches() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const auto& job : jobs_) job->stop.stop();
    changed_.notify_all();
  }
  thread_.join();
}

void RankFetches::add(uint64_t child, ChildStart start) {
  auto job = std::make_shared<Job>();
  job->child = child;
  job->start = std::move(start);
  const std::lock_guard lock(mutex_);
  jobs_.push_back(std::move(job));
  changed_.notify_all();
}

bool RankFetches::remove(uint64_t child) {
  const std::lock_guard lock(mutex_);
  const auto it = std::find_if(jobs_.begin(), jobs_.end(), [&](const auto& job) { return job->child == child; });
  if (it == jobs_.end()) return false;
  (*it)->stop.stop();
  jobs_.erase(it);
  changed_.notify_all();
  return true;
}

std::vector<RankFetches::State> RankFetches::states() const {
  const std::lock_guard lock(mutex_);
  std::vector<State> all;
  for (const auto& job : jobs_) {
    // That the head has more for it is not known before a look at this host's own disk.
    std::string text = job->is_there                             ? "has its part of the checkpoint"
                       : job->total > 0 || !job->failure.empty() ? "gets its part of the checkpoint"
                                                                 : "looks for the checkpoint";
    if (job->total > 0 && !job->is_there) text += ": " + share_of(job->done, job->total);
    if (!job->failure.empty()) text += fmt::format(" ({}; it is tried again)", job->failure);
    all.push_back({job->child, std::move(text)});
  }
  return all;
}

std::shared_ptr<RankFetches::Job> RankFetches::next() const {
  const auto it = std::find_if(jobs_.begin(), jobs_.end(), [](const auto& job) { return !job->is_there; });
  return it == jobs_.end() ? nullptr : *it;
}

void RankFetches::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (const auto job = next()) {
      lock.unlock();
      prepare(job);
      lock.lock();
    } else if (!jobs_.empty()) {
      // Locked, so that whoever is told that a rank is none of these finds it started.
      for (const auto& one : std::exchange(jobs_, {})) {
        if (!one->folder.empty()) one->start.options.model = std::move(one->folder);
        callbacks_.ready(one->child, std::move(one->start));
      }
    } else {
      changed_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
    }
  }
}

void RankFetches::prepare(const std::shared_ptr<Job>& job) {
  if (!callbacks_.has_own(job->start)) return fetch(job);
  const std::lock_guard lock(mutex_);
  job->is_there = true;
}

void RankFetches::fetch(const std::shared_ptr<Job>& job) {
  std::chrono::milliseconds pause = kFirstPause;
  const CheckpointFetcher::Progress progress = [&](uint64_t done, uint64_t total) {
    std::string line;
    {
      const std::lock_guard lock(mutex_);
      const std::string before = share_of(job->done, job->total);
      job->done = done;
      job->total = total;
      job->failure.clear();
      if (share_of(done, total) != before) line = share_of(done, total);
    }
    if (!line.empty())
      callbacks_.progress(fmt::format("rank {} gets its part of the checkpoint: {}", job->start.rank, line));
  };
  const uint64_t before = fetcher_.bytes_received();
  std::string last_failure;
  for (;;) {
    const uint64_t emptied = fetcher_.times_emptied();
    const auto got = fetcher_.fetch(dial_, job->start.options, job->start.rank, job->stop, progress);
    std::unique_lock lock(mutex_);
    if (fetcher_.times_emptied() != emptied) {
      for (const auto& other : jobs_) other->is_there = other->is_there && other->folder.empty();
    }
    if (job->stop.is_stopped()) return;
    if (got) {
      job->is_there = true;
      job->folder = got->string();
      const std::string line =
          fmt::format("rank {} has its part of the checkpoint: {:.1f} MiB, of which {:.1f} came now", job->start.rank,
                      mebibytes(job->total), mebibytes(fetcher_.bytes_received() - before));
      lock.unlock();
      return callbacks_.progress(line);
    }
    job->failure = got.error().why;
    if (got.error().for_good) {
      callbacks_.impossible(job->child, job->failure);
      jobs_.remove(job);
      return;
    }
    const bool is_news = std::exchange(last_failure, job->failure) != job->failure;
    const std::string line = fmt::format("rank {}: {}; it is tried again", job->start.rank, job->failure);
    lock.unlock();
    if (is_news) callbacks_.progress(line);
    lock.lock();
    if (changed_.wait_for(lock, pause, [&] { return job->stop.is_stopped(); })) return;
    pause = std::min(2 * pause, kMostPause);
  }
}

}  // namespace lorikeet::actors
