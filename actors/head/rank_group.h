// The head's view of one epoch of the tensor-parallel group: which ranks have come, and how far they are.
//
//            admit()            loaded()              ready()
//   absent ----------> loading ----------> loaded ------------> ready     each rank
//
//   forming (a rank is not ready) ---> serving ---> lost               the group
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "actors/wire/wire.h"
#include "kernels/base/error.h"

namespace lorikeet::actors {

class RankGroup {
 public:
  enum class RankState : uint8_t { absent, loading, loaded, ready, lost };
  struct Member {
    RankState state = RankState::absent;
    int32_t pid = 0;
    std::string host;
    std::string device;
    RankLoaded loaded;
  };

  RankGroup(int32_t ranks, uint64_t epoch);

  // Whether a rank that says hello belongs to this epoch; repeating it changes nothing.
  Result<void> admit(int32_t rank, int32_t pid, uint64_t epoch, std::string host, std::string device);
  Result<void> loaded(int32_t rank, const RankLoaded& loaded);
  Result<void> ready(int32_t rank);
  void lose();                       // nothing is accepted until the next epoch
  void start_epoch(uint64_t epoch);  // all ranks are new

  bool all_loaded() const { return all_at_least(RankState::loaded); }
  bool serving() const { return !lost_ && all_at_least(RankState::ready); }
  bool lost() const { return lost_; }
  int32_t num_blocks() const;  // that every rank can hold; only if all_loaded()

  // Only if all_loaded(), once in an epoch: whether every rank still has the KV cache that it had in the last group whose
  // ranks had all loaded. A rank without one makes it in this epoch.
  bool keeps_kv();

  int32_t size() const { return static_cast<int32_t>(members_.size()); }
  uint64_t epoch() const { return epoch_; }
  const std::vector<Member>& members() const { return members_; }

 private:
  bool all_at_least(RankState state) const;
  Result<void> advance(int32_t rank, RankState from, RankState to);

  uint64_t epoch_;
  std::vector<Member> members_;
  std::vector<uint64_t> kv_epochs_;  // [ranks]: RankLoaded::kv_epoch of the last group whose ranks had all loaded
  bool lost_ = false;
};

constexpr const char* name_of(RankGroup::RankState state) {
  constexpr const char* names[] = {"absent", "loading", "loaded", "ready", "lost"};
  return names[static_cast<size_t>(state)];
}

}  // namespace lorikeet::actors
