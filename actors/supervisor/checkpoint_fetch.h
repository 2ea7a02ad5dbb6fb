// Gets the part of the head's checkpoint that a rank of this host needs, over kCheckpointStreams connections, into the
// cache. No other state is kept of a transfer than the bytes: for each piece the head is told the digest of what is there,
// and sends it if it differs. So an interrupted transfer continues where it stopped, parts that came with another rank are
// used, and bytes that a disk has changed are sent again.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "actors/supervisor/checkpoint_cache.h"
#include "actors/wire/checkpoint_message.h"
#include "actors/wire/options.h"
#include "comm/cluster/tls_stream.h"

namespace lorikeet::actors {

// Ends fetches from another thread. Threads: any.
class FetchStop {
 public:
  void stop();
  bool is_stopped() const;
  void add(const comm::TlsStream* stream);
  void remove(const comm::TlsStream* stream);

 private:
  mutable std::mutex mutex_;  // guards what follows
  bool stopped_ = false;
  std::set<const comm::TlsStream*> streams_;
};

class CheckpointFetcher {
 public:
  using Dial = std::function<Result<comm::TlsConnection>()>;
  using Progress = std::function<void(uint64_t done, uint64_t total)>;  // bytes; on any thread, never two at once
  static constexpr std::chrono::seconds kPatience{30};                  // with a head that does not answer

  // Why a fetch failed. for_good: trying again would fail the same way.
  struct Failure {
    std::string why;
    bool for_good = false;
  };

  explicit CheckpointFetcher(std::filesystem::path root, uint64_t space) : cache_(std::move(root), space) {}

  // The folder to load `rank` of options.tensor_parallel_size from. Pieces that were found complete are not checked again
  // while the head's files stay the same. Threads: one at a time.
  tl::expected<std::filesystem::path, Failure> fetch(const Dial& dial, const ServerOptions& options, int32_t rank,
                                                     FetchStop& stop, const Progress& progress);

  uint64_t bytes_received() const { return received_; }  // of tensors, by all fetches so far
  // How often a fetch has emptied the folder to stay within the space: the parts of other ranks must be fetched again.
  uint64_t times_emptied() const { return times_emptied_; }

 private:
  struct Known {
    std::vector<checkpoint::File> files;
    int32_t ranks = 0;
    bool tensors = false;
    uint64_t bytes = 0;
    bool is_same(const Known& o) const { return files == o.files && ranks == o.ranks && tensors == o.tensors; }
  };

  class Fetch;
  Result<void> make_room(Fetch& fetch, const std::vector<model::FilePart>& parts, uint64_t of_rank);

  CheckpointCache cache_;
  std::filesystem::path folder_;  // that was opened last
  bool has_leftovers_ = true;     // what is in it may be parts of ranks that are not known
  uint64_t times_emptied_ = 0;
  std::map<int32_t, Known> known_;  // by rank
  std::atomic<uint64_t> received_{0};
};

}  // namespace lorikeet::actors
