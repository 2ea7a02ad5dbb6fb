// One adapter's way to all ranks: slices, DoRA's norms and factors, acknowledgements. To ranks of this host a slice goes as
// the descriptor of the memory that it lies in, to others in chunks, as many ahead as the rank's window has room for.
// Ranks that may have it since an earlier group are asked first (AdapterConfirm).
//
//   asked ---> done, or as the others where the rank lacks it
//   memory handed over  ---> (DoRA: norms of all ranks ---> factors) ---> done by all ranks, or failed
//     | it got lost            ^
//     `-----> chunks ----------'
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/head/chunk_window.h"
#include "actors/head/staged_adapter.h"
#include "actors/wire/envelope.h"
#include "actors/wire/limits.h"
#include "actors/wire/wire.h"
#include "kernels/base/descriptor.h"

namespace lorikeet::actors {

// An order to a rank's adapter thread, as it travels.
std::vector<Envelope> envelopes_of(int32_t rank, uint64_t epoch, const AdapterOrder& order);

class AdapterTransfer {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  // `number` is unique within this head: ranks live through epochs, and so may memory that was handed to them.
  // windows: of the ranks' connections, made where there are none yet; they outlive the transfer, which gives back the room
  // that it takes in them.
  AdapterTransfer(uint64_t number, uint64_t epoch, int32_t slot, std::shared_ptr<const StagedAdapter> adapter,
                  ChunkWindows& windows, TimePoint now);
  ~AdapterTransfer();
  AdapterTransfer(const AdapterTransfer&) = delete;
  AdapterTransfer& operator=(const AdapterTransfer&) = delete;

  // Hands the rank the memory that its slice lies in, under the transfer's number; false: that cannot be.
  using HandOver = std::function<bool(int32_t rank, uint64_t number, const Descriptor& memory)>;

  // What is to be sent to a rank (Envelope::rank): at first, and whenever its window may have room. confirms: the ranks
  // are asked whether the slot holds it already.
  std::vector<Envelope> start(TimePoint now, const HandOver& hand_over = nullptr, bool confirms = false);
  // The rank has answered that its slot does not hold the adapter.
  std::vector<Envelope> slice_wanted(int32_t rank, const HandOver& hand_over, TimePoint now);
  std::vector<Envelope> more_chunks(int32_t rank, TimePoint now);
  void chunk_taken(int32_t rank, TimePoint now);
  // The rank has not got the memory that was handed over.
  std::vector<Envelope> chunks_wanted(int32_t rank, const std::string& why, TimePoint now);

  // Takes a rank's norms; true once all ranks' are there.
  bool add_norms(int32_t rank, DoraValues norms, TimePoint now);
  const std::vector<DoraValues>& norms() const { return norms_; }
  std::vector<Envelope> factors(const std::vector<DoraValues>& by_rank) const;

  void done(int32_t rank, const AdapterDone& done, TimePoint now);
  void fail(std::string error);          // the adapter's error
  void ranks_failed(std::string error);  // the ranks' error, not the adapter's
  bool have_ranks_failed() const { return ranks_failed_; }

  bool has_sent_slices() const { return has_sent_slices_; }
  bool finished() const { return !error_.empty() || num_done_ == static_cast<int32_t>(ranks_.size()); }
  const std::string& error() const { return error_; }
  TimePoint last_progress() const { return last_progress_; }
  uint64_t number() const { return number_; }
  int32_t slot() const { return slot_; }
  const std::shared_ptr<const StagedAdapter>& adapter() const { return adapter_; }

 private:
  struct Rank {
    bool asked = false;        // whether it has the adapter, and has not answered
    bool handed_over = false;  // and nothing of the slice goes in chunks
    bool begun = false;        // and more of it may follow
    size_t sent = 0;           // bytes of its slice
    std::deque<ChunkWindow::Sent> unanswered;
    bool has_norms = false, done = false;
  };

  void add(int32_t rank, AdapterOrder::What what, std::vector<Envelope>& out) const;
  void send_slice(int32_t rank, TimePoint now, const HandOver& hand_over, std::vector<Envelope>& out);
  void begin_chunks(int32_t rank, TimePoint now, std::vector<Envelope>& out);
  void send_chunks(int32_t rank, TimePoint now, std::vector<Envelope>& out);
  bool is_rank(int32_t rank);

  uint64_t number_, epoch_;
  int32_t slot_;
  std::shared_ptr<const StagedAdapter> adapter_;
  ChunkWindows& windows_;
  std::vector<Rank> ranks_;
  std::vector<DoraValues> norms_;
  int32_t num_norms_ = 0, num_done_ = 0;
  std::string error_;
  bool ranks_failed_ = false, has_sent_slices_ = false;
  TimePoint last_progress_;
};

}  // namespace lorikeet::actors
