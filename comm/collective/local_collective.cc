// The collectives of ranks that are threads of one process: they read each other's buffers in place.
//
// An operation has two phases. In the first the ranks wait for each other; a lost or aborted rank ends it. Once all
// have arrived they copy, which nothing interrupts: so nobody leaves while another still touches his buffer.
#include <glog/logging.h>

#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <optional>

#include "comm/collective/group.h"
#include "comm/collective/ordered_sum.h"

namespace lorikeet::comm {
namespace {

struct Arrival {
  const char* operation = "";
  void* data = nullptr;  // of this rank
  const void* source = nullptr;
  size_t size = 0;
};

class LocalGroup {
 public:
  explicit LocalGroup(int size) : arrivals_(size), aborted_(size, false) {}

  int size() const { return static_cast<int>(arrivals_.size()); }

  // Waits until every rank has arrived, runs copy(arrivals) on each, waits until every rank has copied.
  template <class Copy>
  void meet(int rank, const Arrival& arrival, const Copy& copy) {
    std::unique_lock lock(mutex_);
    check_alive(rank);
    arrivals_[rank] = arrival;
    if (++arrived_ == size()) {
      for (const Arrival& other : arrivals_) {
        CHECK_STREQ(other.operation, arrival.operation) << "ranks called different collectives";
        CHECK_EQ(other.size, arrival.size) << "ranks called " << arrival.operation << " with different sizes";
      }
      arrived_ = 0;
      copying_ = size();
      ++generation_;
      changed_.notify_all();
    } else {
      const uint64_t generation = generation_;
      while (generation == generation_) {
        if (lost_ || aborted_[rank]) {
          --arrived_;
          check_alive(rank);
        }
        changed_.wait(lock);
      }
    }
    lock.unlock();
    copy(arrivals_);
    lock.lock();
    if (--copying_ == 0) changed_.notify_all();
    changed_.wait(lock, [this] { return copying_ == 0; });
  }

  void abort(int rank) {
    const std::lock_guard lock(mutex_);
    aborted_[rank] = true;
    lose(rank);
  }

  void leave(int rank) {
    const std::lock_guard lock(mutex_);
    lose(rank);
  }

 private:
  void lose(int rank) {
    if (!lost_) lost_ = rank;
    changed_.notify_all();
  }

  void check_alive(int rank) const {
    if (aborted_[rank]) throw CollectiveError(CollectiveFailure::aborted, fmt::format("rank {}: aborted", rank));
    if (lost_)
      throw CollectiveError(CollectiveFailure::peer_lost, fmt::format("rank {}: rank {} is gone", rank, *lost_));
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Arrival> arrivals_;  // written under the mutex before the ranks copy, read without it while they copy
  std::vector<bool> aborted_;
  std::optional<int> lost_;  // the first rank that left or aborted: no later operation can complete
  int arrived_ = 0, copying_ = 0;
  uint64_t generation_ = 0;
};

class LocalCollective final : public Collective {
 public:
  LocalCollective(std::shared_ptr<LocalGroup> group, int rank) : group_(std::move(group)), rank_(rank) {}
  ~LocalCollective() override { group_->leave(rank_); }

  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }

  void all_reduce(float* data, size_t count) override {
    group_->meet(rank_, {"all_reduce", data, nullptr, count}, [&](const std::vector<Arrival>& ranks) {
      // This rank's chunk is read and written by this rank alone, in all buffers.
      const auto [begin, end] = chunk_of(count, rank_, size());
      std::vector<const float*> terms;
      for (const Arrival& rank : ranks) terms.push_back(static_cast<const float*>(rank.data) + begin);
      ordered_sum(terms, data + begin, end - begin);
      for (const Arrival& rank : ranks) {
        if (rank.data != data) std::copy(data + begin, data + end, static_cast<float*>(rank.data) + begin);
      }
    });
  }

  void all_gather(const void* send, void* receive, size_t bytes) override {
    group_->meet(rank_, {"all_gather", receive, send, bytes}, [&](const std::vector<Arrival>& ranks) {
      for (size_t r = 0; r < ranks.size() && bytes > 0; ++r) {
        char* target = static_cast<char*>(receive) + r * bytes;
        if (ranks[r].source != target) std::memcpy(target, ranks[r].source, bytes);
      }
    });
  }

  void broadcast(void* data, size_t bytes, int root) override {
    CHECK_GE(root, 0);
    CHECK_LT(root, size());
    group_->meet(rank_, {"broadcast", data, nullptr, bytes}, [&](const std::vector<Arrival>& ranks) {
      if (rank_ != root && bytes > 0) std::memcpy(data, ranks[root].data, bytes);
    });
  }

  void barrier() override {
    group_->meet(rank_, {"barrier", nullptr, nullptr, 0}, [](const std::vector<Arrival>&) {});
  }

  void abort() override { group_->abort(rank_); }

 private:
  const std::shared_ptr<LocalGroup> group_;
  const int rank_;
};

}  // namespace

std::vector<std::unique_ptr<Collective>> make_local_group(int size) {
  CHECK_GE(size, 1);
  const auto group = std::make_shared<LocalGroup>(size);
  std::vector<std::unique_ptr<Collective>> ends;
  for (int rank = 0; rank < size; ++rank) ends.push_back(std::make_unique<LocalCollective>(group, rank));
  return ends;
}

}  // namespace lorikeet::comm
