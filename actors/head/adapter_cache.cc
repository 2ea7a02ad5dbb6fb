#include "actors/head/adapter_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <unordered_map>
#include <utility>
#include <variant>

#include "actors/head/adapter_changes.h"
#include "actors/head/adapter_slots.h"
#include "actors/head/adapter_tiers.h"
#include "actors/head/adapter_transfer.h"
#include "actors/head/host_adapters.h"
#include "comm/codec/codec.h"
#include "kernels/base/console.h"

namespace lorikeet::actors {
namespace {

constexpr std::chrono::milliseconds kCacheTick{1000};
constexpr size_t kOthersInBrief = 256;  // adapters on disk that a brief status shows

std::vector<std::string> names_of_base(const ServerOptions& options) {
  std::vector<std::string> names = options.more_model_names;
  names.push_back(options.served_model_name);
  return names;
}

class AdapterCache {
 public:
  AdapterCache(AdapterCacheActor::pointer self, AdapterCacheSetup setup)
      : self_(self),
        options_(std::move(setup.options)),
        host_({options_.max_cpu_loras, options_.max_cpu_lora_bytes}, options_.lora_modules),
        slots_({options_.max_loras, options_.lora_memory_bytes, options_.tensor_parallel_size}),
        changes_({options_.runtime_lora_updating, names_of_base(options_)}, std::move(setup.names), host_, slots_),
        journal_(std::move(setup.journal)),
        descriptors_(std::move(setup.descriptors)),
        source_(setup.make_source(callbacks(self))) {
    if (journal_) changes_.restore(journal_->changes(), now());
    tick();
  }

  // ---- requests

  caf::result<AdapterResolved> resolve(const ResolveAdapter& ask) {
    auto promise = self_->make_response_promise<AdapterResolved>();
    resolving_.emplace(ask.id, promise);
    ++lookups_.lookups;
    lookups_.host_hits += host_.is_staged(ask.name) ? 1 : 0;
    host_.resolve(ask.id, ask.name);
    act();
    return promise;
  }

  void unclaim(const UnclaimAdapter& over) {
    host_.unclaim(over.id, over.outcome);
    HostAdapters::Resolved answer{over.id, "", "the request is over"};
    answer_resolve(answer);  // every request of an actor needs its answer
    act();
  }

  caf::result<SlotAcquired> acquire(const AcquireSlot& ask) {
    auto promise = self_->make_response_promise<SlotAcquired>();
    acquiring_.emplace(ask.id, promise);
    ++lookups_.slot_lookups;
    lookups_.slot_hits += slots_.is_resident(ask.digest) ? 1 : 0;
    slots_.acquire(ask.id, ask.digest, host_.staged(ask.digest));
    act();
    return promise;
  }

  void release(const ReleaseSlot& over) {
    slots_.release(over.id, over.digest);
    AdapterSlots::Acquired answer{over.id, engine::kBaseSlot, "the request is over"};
    perform(answer);
    act();
  }

  caf::result<AdapterChanged> change(const ChangeAdapter& ask) {
    auto promise = self_->make_response_promise<AdapterChanged>();
    changing_.emplace(changes_.begin(*ask.request, now()), promise);
    act();
    return promise;
  }

  // ---- the disk

  void located(const AdapterSource::Located& found) {
    changes_.located(found.key, found.directory);
    act();
  }

  void checked(const AdapterSource::Checked& found) {
    host_.checked(found.name, found.stamp, found.error);
    act();
  }

  void staged(AdapterSource::Staged& found) {
    const auto began = reading_since_.extract(found.name);
    if (began && found.adapter) reads_.add(since(began.mapped()));
    host_.read(found.name, found.stamp, std::move(found.adapter));
    act();
  }

  // ---- the ranks

  void formed(GroupFormed& formed) {
    epoch_ = formed.epoch;
    workers_ = std::move(formed.workers);
    scheduler_ = caf::actor_cast<caf::actor_addr>(self_->current_sender());
    assemblers_.assign(workers_.size(), EnvelopeAssembler(kMaxRankMessageBytes));
    windows_.assign(workers_.size(), ChunkWindow());
    slots_.group_formed();
    changes_.group_formed(now());
    act();
  }

  void lost(const GroupLost& lost) {
    if (lost.epoch < epoch_) return;
    workers_.clear();
    assemblers_.clear();
    transfers_.clear();
    sending_since_.clear();
    slots_.group_lost();
    act();
  }

  void take(Envelope& envelope) {
    if (envelope.epoch != epoch_) return;
    const int32_t rank = envelope.rank;
    if (envelope.stream != EnvelopeStream::adapters || rank < 0 || rank >= static_cast<int32_t>(assemblers_.size())) {
      return;
    }
    if (!comes_from(workers_[static_cast<size_t>(rank)])) return;
    auto bytes = assemblers_[static_cast<size_t>(rank)].add(std::move(envelope));
    if (!bytes) return fail_transfers(rank, bytes.error().message);
    if (!*bytes) return;
    auto report = comm::decode<AdapterReport>(**bytes);
    if (!report) return fail_transfers(rank, report.error().message);
    const auto it = transfers_.find(report->transfer);
    if (it == transfers_.end()) return;  // it has failed meanwhile
    std::visit([&](auto& what) { take(it->second, rank, what); }, report->what);
    end_if_finished(report->transfer);
  }

  void factors_made(const FactorsMade& made) {
    const auto it = transfers_.find(made.transfer);
    if (it == transfers_.end()) return;
    made.error.empty() ? send(it->second.factors(made.factors)) : it->second.fail(made.error);
    end_if_finished(made.transfer);
  }

  // ---- any state

  void tick() {
    source_->tick(now());
    changes_.tick(now());
    act();
    const std::chrono::milliseconds limit(options_.rank_timeout_ms);
    std::vector<uint64_t> late;
    for (const auto& [number, transfer] : transfers_) {
      if (now() - transfer.last_progress() > limit) late.push_back(number);
    }
    for (const uint64_t number : late) {
      transfers_.at(number).ranks_failed(fmt::format("the ranks have not taken the adapter in {} ms", limit.count()));
      end_if_finished(number);
    }
    self_->delayed_send(caf::actor_cast<AdapterCacheActor>(self_), kCacheTick, Tick{});
  }

  AdaptersStatus status(bool brief) const {
    AdaptersStatus status;
    status.transfers = transfers_.size();
    status.staged_bytes = host_.staged_bytes();
    status.blocked = source_->left_behind().size();
    status.lookups = lookups_;
    status.tiers = tiers_of(host_, slots_, lookups_);
    status.reads = reads_;
    status.sends = sends_;
    auto rows = brief ? host_.rows(slots_.resident(), kOthersInBrief) : host_.rows();
    const auto is_name = [](const HostAdapters::Row& row) { return row.host != "replaced" && row.host != "loading"; };
    const auto listed = static_cast<size_t>(std::count_if(rows.begin(), rows.end(), is_name));
    if (brief) status.unlisted = host_.size() - std::min(host_.size(), listed);
    for (HostAdapters::Row& row : rows) {
      AdapterSlots::Row slot = slots_.row(row.digest);
      AdapterStatus& adapter = status.adapters.emplace_back();
      adapter.name = std::move(row.name);
      adapter.digest = std::move(row.digest);
      adapter.host = std::move(row.host);
      adapter.slot_state = std::move(slot.state);
      if (slot.slot >= 0) adapter.slot = slot.slot;
      adapter.leases = slot.leases;
      adapter.claims = row.claims;
      adapter.rank = row.max_rank;
      adapter.bytes = row.bytes;
      adapter.pinned = row.kept;
      adapter.set_aside = row.set_aside;
      adapter.directory = std::move(row.dir);
      std::string& error = row.error.empty() ? slot.error : row.error;
      if (!error.empty()) adapter.error = std::move(error);
    }
    return status;
  }

 private:
  AdapterTransfer::TimePoint now() const { return self_->clock().now(); }
  uint64_t since(AdapterTransfer::TimePoint began) const {
    return static_cast<uint64_t>(std::chrono::nanoseconds(now() - began).count());
  }

  static AdapterSource::Callbacks callbacks(AdapterCacheActor::pointer self) {
    const caf::actor_addr address = self->address();  // weak: the source belongs to the actor
    const auto send = [address](auto message) {
      if (auto actor = caf::actor_cast<AdapterCacheActor>(address)) caf::anon_send(actor, std::move(message));
    };
    return {[send](AdapterSource::Checked found) { send(std::move(found)); },
            [send](AdapterSource::Staged found) { send(std::move(found)); },
            [send](AdapterSource::Located found) { send(std::move(found)); }};
  }

  // Whether the present message is the worker's own. CAF takes the sender's process from the connection.
  bool comes_from(const WorkerForHead& worker) const {
    return caf::actor_cast<caf::strong_actor_ptr>(worker) == self_->current_sender();
  }

  // Carries out the tables' effects, which may cause more.
  void act() {
    for (;;) {
      auto of_host = host_.take_effects();
      auto of_slots = slots_.take_effects();
      auto of_changes = changes_.take_effects();
      if (of_host.empty() && of_slots.empty() && of_changes.empty()) return;
      for (auto& effect : of_host) std::visit([this](auto& wanted) { perform(wanted); }, effect);
      for (auto& effect : of_slots) std::visit([this](auto& wanted) { perform(wanted); }, effect);
      for (auto& effect : of_changes) std::visit([this](auto& wanted) { perform(wanted); }, effect);
    }
  }

  void perform(HostAdapters::Check& check) { source_->check(check.name, check.dir); }
  void perform(HostAdapters::Read& read) {
    reading_since_[read.name] = now();
    source_->read(read.name, read.dir, read.file_bytes);
  }
  void perform(HostAdapters::Cancel& cancel) {
    if (!source_->cancel(cancel.name)) return;
    reading_since_.erase(cancel.name);
    host_.cancelled(cancel.name);
  }
  void perform(HostAdapters::Unclaimed& unclaimed) { slots_.unclaimed(unclaimed.digest); }
  void perform(HostAdapters::Dropped& dropped) { slots_.drop(dropped.digest); }
  void perform(HostAdapters::Keep& keep) { slots_.keep(keep.digest, keep.kept, host_.staged(keep.digest).get()); }
  void perform(AdapterChanges::Locate& locate) { source_->locate(locate.key, locate.path); }

  void perform(AdapterChanges::Ended& ended) {
    const auto promise = changing_.extract(ended.number);
    if (promise) promise.mapped().deliver(AdapterChanged{std::move(ended.message), std::move(ended.code)});
  }

  void perform(AdapterChanges::Remember& remember) {
    if (!journal_) return;
    const auto written = journal_->add(remember.change);
    if (!written && !std::exchange(journal_failed_, true)) {
      say("names of adapters that change now are lost should this process be replaced: {}", written.error().message);
    }
  }
  void perform(AdapterChanges::Forgotten& forgotten) {
    say("adapter {} was loaded before this process was replaced, and is not served any more: {}", forgotten.name,
        forgotten.why);
  }

  void perform(AdapterSlots::GiveWay& way) {
    const auto scheduler = caf::actor_cast<SchedulerActor>(scheduler_);
    if (scheduler) self_->send(scheduler, GiveWay{epoch_, std::move(way.digest), way.wanted});
  }

  void perform(AdapterSlots::Pin& pin) { host_.pin(pin.digest); }
  void perform(AdapterSlots::Unpin& unpin) { host_.unpin(unpin.digest); }

  void perform(HostAdapters::Resolved& resolved) {
    if (resolved.error.empty()) slots_.claimed(resolved.digest);
    if (!changes_.resolved(resolved)) answer_resolve(resolved);
  }

  void answer_resolve(HostAdapters::Resolved& resolved) {
    const auto it = resolving_.find(resolved.id);
    if (it == resolving_.end()) return;
    it->second.deliver(AdapterResolved{std::move(resolved.digest), std::move(resolved.error), resolved.unknown});
    resolving_.erase(it);
  }

  void perform(AdapterSlots::Acquired& acquired) {
    if (changes_.acquired(acquired)) return;
    const auto it = acquiring_.find(acquired.id);
    if (it == acquiring_.end()) return;
    it->second.deliver(SlotAcquired{acquired.slot, std::move(acquired.error), epoch_, acquired.ranks_failed});
    acquiring_.erase(it);
  }

  void perform(AdapterSlots::Send& wanted) {
    static_assert(ChunkWindow::kMost + AdapterSlots::kMostSends * kEnvelopeBytes <= kMaxPeerBytes / 4,
                  "what all transfers have on their way stays far below what a peer may leave unread");
    const auto [it, added] =
        transfers_.try_emplace(wanted.transfer, wanted.transfer, epoch_, wanted.slot, wanted.adapter, windows_, now());
    sending_since_[wanted.transfer] = now();
    send(it->second.start(now(), hand_over(), wanted.confirms));
  }

  AdapterTransfer::HandOver hand_over() const {
    return [this](int32_t rank, uint64_t number, const Descriptor& memory) {
      return descriptors_ && descriptors_->send(rank, number, memory).has_value();
    };
  }

  void perform(AdapterSlots::Clear& clear) {
    for (size_t rank = 0; rank < workers_.size(); ++rank) {
      send(envelopes_of(static_cast<int32_t>(rank), epoch_, {clear.transfer, AdapterClear{clear.slot}}));
    }
  }

  void send(std::vector<Envelope> envelopes) {
    for (Envelope& envelope : envelopes) {
      const auto rank = static_cast<size_t>(envelope.rank);
      if (rank < workers_.size()) self_->send(workers_[rank], std::move(envelope));
    }
  }

  // A message of a rank cannot be read, so it is not known which transfer it is about: all of them go to this rank.
  void fail_transfers(int32_t rank, const std::string& why) {
    std::vector<uint64_t> numbers;
    for (auto& [number, transfer] : transfers_) {
      transfer.ranks_failed(fmt::format("rank {}: {}", rank, why));
      numbers.push_back(number);
    }
    for (const uint64_t number : numbers) end_if_finished(number);
  }

  void take(AdapterTransfer& transfer, int32_t rank, const ChunkTaken&) {
    transfer.chunk_taken(rank, now());
    fill_window(rank, transfer.number());
  }

  // Transfers take turns in the window of a rank: those behind `last`, which came last, go first.
  void fill_window(int32_t rank, uint64_t last) {
    const auto behind = transfers_.upper_bound(last);
    for (auto it = behind; it != transfers_.end(); ++it) send(it->second.more_chunks(rank, now()));
    for (auto it = transfers_.begin(); it != behind; ++it) send(it->second.more_chunks(rank, now()));
  }

  void take(AdapterTransfer& transfer, int32_t rank, const ChunksWanted& wanted) {
    send(transfer.chunks_wanted(rank, wanted.why, now()));
  }

  void take(AdapterTransfer& transfer, int32_t rank, const SliceWanted&) {
    send(transfer.slice_wanted(rank, hand_over(), now()));
  }

  void take(AdapterTransfer& transfer, int32_t rank, const AdapterDone& done) { transfer.done(rank, done, now()); }

  void take(AdapterTransfer& transfer, int32_t rank, DoraValues& norms) {
    if (!transfer.add_norms(rank, std::move(norms), now())) return;
    source_->run(
        [adapter = transfer.adapter(), all = transfer.norms(), number = transfer.number(), cache = self_->address()] {
          auto factors = dora_factors(*adapter, all);
          FactorsMade made{number, {}, factors ? "" : factors.error().message};
          if (factors) made.factors = *std::move(factors);
          if (auto actor = caf::actor_cast<AdapterCacheActor>(cache)) caf::anon_send(actor, std::move(made));
        });
  }

  void end_if_finished(uint64_t number) {
    const auto it = transfers_.find(number);
    if (it == transfers_.end() || !it->second.finished()) return;
    {
      const auto ended = transfers_.extract(it);
      const AdapterTransfer& transfer = ended.mapped();
      const auto began = sending_since_.extract(number);
      if (began && transfer.error().empty() && transfer.has_sent_slices()) sends_.add(since(began.mapped()));
      slots_.sent(transfer.adapter()->digest, transfer.error(), transfer.have_ranks_failed());
    }
    // Its bytes on the way make room for others; where it has failed, no answer would say so.
    for (size_t rank = 0; rank < windows_.size(); ++rank) fill_window(static_cast<int32_t>(rank), number);
    act();
  }

  AdapterCacheActor::pointer self_;
  const ServerOptions options_;
  HostAdapters host_;
  AdapterSlots slots_;
  AdapterChanges changes_;
  std::unordered_map<uint64_t, caf::typed_response_promise<AdapterChanged>> changing_;  // by number of the change
  std::unordered_map<engine::SequenceId, caf::typed_response_promise<AdapterResolved>> resolving_;
  std::unordered_map<engine::SequenceId, caf::typed_response_promise<SlotAcquired>> acquiring_;
  uint64_t epoch_ = 0;
  caf::actor_addr scheduler_;                  // who told of the group; weak, since it holds this actor
  std::vector<WorkerForHead> workers_;         // [ranks]; empty: the group is not there
  std::vector<EnvelopeAssembler> assemblers_;  // [ranks], too
  ChunkWindows windows_;                       // [ranks], too
  std::map<uint64_t, AdapterTransfer> transfers_;
  std::map<uint64_t, AdapterTransfer::TimePoint> sending_since_;               // by transfer
  std::unordered_map<std::string, AdapterTransfer::TimePoint> reading_since_;  // by key
  AdapterLookups lookups_;
  Durations reads_, sends_;
  const std::shared_ptr<NameJournal> journal_;
  const std::shared_ptr<const DescriptorSenders> descriptors_;
  bool journal_failed_ = false;            // and people were told
  std::unique_ptr<AdapterSource> source_;  // last: its threads end before the rest does
};

}  // namespace

AdapterCacheActor::behavior_type adapter_cache(AdapterCacheActor::pointer self, AdapterCacheSetup setup) {
  auto state = std::make_shared<AdapterCache>(self, std::move(setup));
  return {[state](Envelope& envelope) { state->take(envelope); },
          [state](const ResolveAdapter& ask) { return state->resolve(ask); },
          [state](const UnclaimAdapter& over) { state->unclaim(over); },
          [state](const AcquireSlot& ask) { return state->acquire(ask); },
          [state](const ReleaseSlot& over) { state->release(over); },
          [state](GroupFormed& group) { state->formed(group); },
          [state](const GroupLost& group) { state->lost(group); },
          [state](const AdapterSource::Checked& found) { state->checked(found); },
          [state](AdapterSource::Staged& found) { state->staged(found); },
          [state](const AdapterSource::Located& found) { state->located(found); },
          [state](const ChangeAdapter& ask) { return state->change(ask); },
          [state](const FactorsMade& made) { state->factors_made(made); },
          [state](Tick) { state->tick(); },
          [state](const StatusQuery& query) { return state->status(query.brief); },
          [](Pulse) { return true; }};
}

}  // namespace lorikeet::actors
