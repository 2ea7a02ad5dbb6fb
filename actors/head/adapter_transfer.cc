#include "actors/head/adapter_transfer.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>

#include "comm/codec/codec.h"

namespace lorikeet::actors {

std::vector<Envelope> envelopes_of(int32_t rank, uint64_t epoch, const AdapterOrder& order) {
  return split({EnvelopeStream::adapters, rank, epoch, 0, true, {}}, comm::encode(order));
}

AdapterTransfer::AdapterTransfer(uint64_t number, uint64_t epoch, int32_t slot,
                                 std::shared_ptr<const StagedAdapter> adapter, ChunkWindows& windows, TimePoint now)
    : number_(number),
      epoch_(epoch),
      slot_(slot),
      adapter_(std::move(adapter)),
      windows_(windows),
      ranks_(adapter_->ranks()),
      norms_(adapter_->ranks()),
      last_progress_(now) {
  if (windows_.size() < ranks_.size()) windows_.resize(ranks_.size());
}

AdapterTransfer::~AdapterTransfer() {
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    for (const ChunkWindow::Sent& chunk : ranks_[rank].unanswered) windows_[rank].forget(chunk);
  }
}

std::vector<Envelope> AdapterTransfer::start(TimePoint now, const HandOver& hand_over, bool confirms) {
  std::vector<Envelope> out;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    const auto rank = static_cast<int32_t>(i);
    ranks_[i].asked = confirms;
    if (confirms) {
      add(rank, AdapterConfirm{adapter_->digest, slot_}, out);
    } else {
      send_slice(rank, now, hand_over, out);
    }
  }
  return out;
}

std::vector<Envelope> AdapterTransfer::slice_wanted(int32_t rank, const HandOver& hand_over, TimePoint now) {
  std::vector<Envelope> out;
  if (finished() || !is_rank(rank)) return out;
  Rank& wants = ranks_[static_cast<size_t>(rank)];
  if (!std::exchange(wants.asked, false) || wants.done) {
    ranks_failed(fmt::format("rank {} wants an adapter that it has, or is getting", rank));
    return out;
  }
  last_progress_ = now;
  send_slice(rank, now, hand_over, out);
  return out;
}

void AdapterTransfer::send_slice(int32_t rank, TimePoint now, const HandOver& hand_over, std::vector<Envelope>& out) {
  has_sent_slices_ = true;
  Rank& to = ranks_[static_cast<size_t>(rank)];
  const Descriptor* const memory = adapter_->memory();
  to.handed_over = memory != nullptr && hand_over && hand_over(rank, number_, *memory);
  if (!to.handed_over) return begin_chunks(rank, now, out);
  const StagedAdapter::Part& part = adapter_->parts[static_cast<size_t>(rank)];
  add(rank, AdapterRegion{adapter_->digest, slot_, adapter_->region.bytes().size(), part.offset, part.bytes}, out);
}

std::vector<Envelope> AdapterTransfer::chunks_wanted(int32_t rank, const std::string& why, TimePoint now) {
  std::vector<Envelope> out;
  if (finished() || !is_rank(rank)) return out;
  Rank& wants = ranks_[static_cast<size_t>(rank)];
  if (!std::exchange(wants.handed_over, false) || wants.done) {
    ranks_failed(fmt::format("rank {} takes the adapter in no way: {}", rank, why));
    return out;
  }
  last_progress_ = now;
  begin_chunks(rank, now, out);
  return out;
}

void AdapterTransfer::begin_chunks(int32_t rank, TimePoint now, std::vector<Envelope>& out) {
  ranks_[static_cast<size_t>(rank)].begun = true;
  add(rank, AdapterBegin{adapter_->digest, slot_, adapter_->slice(static_cast<size_t>(rank)).size()}, out);
  send_chunks(rank, now, out);
}

void AdapterTransfer::add(int32_t rank, AdapterOrder::What what, std::vector<Envelope>& out) const {
  for (Envelope& part : envelopes_of(rank, epoch_, {number_, std::move(what)})) out.push_back(std::move(part));
}

void AdapterTransfer::send_chunks(int32_t rank, TimePoint now, std::vector<Envelope>& out) {
  Rank& to = ranks_[static_cast<size_t>(rank)];
  if (!to.begun) return;
  ChunkWindow& window = windows_[static_cast<size_t>(rank)];
  const std::span<const uint8_t> slice = adapter_->slice(static_cast<size_t>(rank));
  while (to.sent < slice.size()) {
    const size_t bytes = std::min(kAdapterChunkBytes, slice.size() - to.sent);
    if (!window.has_room(bytes)) return;
    const auto begin = slice.begin() + static_cast<ptrdiff_t>(to.sent);
    add(rank, AdapterChunk{{begin, begin + static_cast<ptrdiff_t>(bytes)}}, out);
    to.unanswered.push_back(window.sent(bytes, now));
    to.sent += bytes;
  }
}

bool AdapterTransfer::is_rank(int32_t rank) {
  if (rank >= 0 && rank < static_cast<int32_t>(ranks_.size())) return true;
  ranks_failed(fmt::format("an answer from rank {} of {}", rank, ranks_.size()));
  return false;
}

void AdapterTransfer::chunk_taken(int32_t rank, TimePoint now) {
  if (finished() || !is_rank(rank)) return;
  Rank& from = ranks_[static_cast<size_t>(rank)];
  if (from.unanswered.empty()) return;
  last_progress_ = now;
  windows_[static_cast<size_t>(rank)].answered(from.unanswered.front(), now);
  from.unanswered.pop_front();
}

std::vector<Envelope> AdapterTransfer::more_chunks(int32_t rank, TimePoint now) {
  std::vector<Envelope> out;
  if (!finished() && is_rank(rank)) send_chunks(rank, now, out);
  return out;
}

bool AdapterTransfer::add_norms(int32_t rank, DoraValues norms, TimePoint now) {
  if (finished() || !is_rank(rank)) return false;
  Rank& from = ranks_[static_cast<size_t>(rank)];
  if (from.has_norms) return false;
  last_progress_ = now;
  from.has_norms = true;
  norms_[static_cast<size_t>(rank)] = std::move(norms);
  return ++num_norms_ == static_cast<int32_t>(ranks_.size());
}

std::vector<Envelope> AdapterTransfer::factors(const std::vector<DoraValues>& by_rank) const {
  std::vector<Envelope> out;
  for (size_t rank = 0; rank < by_rank.size(); ++rank) {
    add(static_cast<int32_t>(rank), by_rank[rank], out);
  }
  return out;
}

void AdapterTransfer::done(int32_t rank, const AdapterDone& done, TimePoint now) {
  if (finished() || !is_rank(rank)) return;
  Rank& from = ranks_[static_cast<size_t>(rank)];
  if (from.done) return;
  last_progress_ = now;
  if (!done.error.empty()) {
    fail(fmt::format("rank {}: {}", rank, done.error));
  } else if (done.digest != adapter_->digest) {
    fail(fmt::format("rank {} has adapter {} where {} was sent", rank, done.digest, adapter_->digest));
  } else {
    from.done = true;
    ++num_done_;
  }
}

void AdapterTransfer::fail(std::string error) {
  if (error_.empty()) error_ = std::move(error);
}

void AdapterTransfer::ranks_failed(std::string error) {
  if (error_.empty()) ranks_failed_ = true;
  fail(std::move(error));
}

}  // namespace lorikeet::actors
