#include "actors/rank/rank_adapters.h"

#include <utility>
#include <variant>

#include "comm/codec/codec.h"
#include "kernels/base/resident_memory.h"
#include "kernels/base/thread_turns.h"
#include "model/adapter/adapter_slice.h"

namespace lorikeet::actors {

RankAdapters::RankAdapters(Setup setup, model::ShardPlan plan, std::shared_ptr<model::RankModel> model,
                           Callbacks callbacks)
    : setup_(std::move(setup)),
      plan_(std::move(plan)),
      model_(std::move(model)),
      callbacks_(std::move(callbacks)),
      held_(setup_.held ? setup_.held : std::make_shared<SlotDigests>()),
      queue_(kMaxQueuedAdapterBytes),
      thread_([this] { run(); }) {}

RankAdapters::~RankAdapters() {
  queue_.close();
  thread_.join();
}

void RankAdapters::take(Envelope envelope) {
  const size_t bytes = envelope.bytes.size();
  if (!queue_.push(std::move(envelope), bytes)) callbacks_.fatal("the head sends more of adapters than was agreed");
}

void RankAdapters::run() {
  kernels::sleep_exactly();  // between looks at what a device has taken
  held_->resize(static_cast<size_t>(setup_.num_slots));
  while (auto envelope = queue_.pop()) {
    auto order = assemble(*std::move(envelope));
    if (!order) return callbacks_.fatal(order.error().message);
    if (*order) handle(**std::move(order));
  }
}

Result<std::optional<AdapterOrder>> RankAdapters::assemble(Envelope envelope) {
  const auto bytes = assembler_.add(std::move(envelope));
  if (!bytes) return tl::unexpected(bytes.error());
  if (!*bytes) return std::optional<AdapterOrder>();
  auto order = comm::decode<AdapterOrder>(**bytes);
  if (!order) return tl::unexpected(order.error());
  return std::optional<AdapterOrder>(*std::move(order));
}

void RankAdapters::handle(AdapterOrder order) {
  const uint64_t number = order.transfer;
  const auto ok = std::visit([&](auto& what) { return perform(number, what); }, order.what);
  if (ok) return;
  AdapterDone failed;
  if (const auto it = transfers_.find(number); it != transfers_.end()) failed.digest = it->second.begin.digest;
  failed.error = ok.error().message;
  transfers_.erase(number);
  send(number, failed);
}

Result<void> RankAdapters::perform(uint64_t number, AdapterBegin& begin) {
  if (auto ok = check(begin.slot, begin.bytes); !ok) return ok;
  Transfer& transfer = transfers_[number];
  transfer = {std::move(begin), {}, std::nullopt};
  transfer.bytes.reserve(transfer.begin.bytes);
  return {};
}

Result<void> RankAdapters::check(int32_t slot) const {
  if (slot < 0 || slot >= setup_.num_slots) return fail("adapter slot {} of {}", slot, setup_.num_slots);
  return {};
}

Result<void> RankAdapters::check(int32_t slot, uint64_t bytes) const {
  if (auto ok = check(slot); !ok) return ok;
  if (bytes == 0 || bytes > kMaxAdapterSliceBytes) {
    return fail("an adapter slice of {} bytes: at most {} are taken", bytes, kMaxAdapterSliceBytes);
  }
  return {};
}

Result<void> RankAdapters::perform(uint64_t number, const AdapterRegion& region) {
  if (auto ok = check(region.slot, region.bytes); !ok) return ok;
  Result<Descriptor> descriptor = fail("this rank takes no descriptors");
  if (setup_.descriptors) descriptor = setup_.descriptors->receive(number);
  if (!descriptor) {
    send(number, ChunksWanted{descriptor.error().message});
    return {};
  }
  if (const auto size = kernels::sealed_size(*descriptor); !size) {
    return fail("the memory of an adapter: {}", size.error().message);
  }
  auto attached = kernels::ResidentMemory::attach(*std::move(descriptor));
  if (!attached) {  // a failure of this process, not of the adapter
    send(number, ChunksWanted{attached.error().message});
    return {};
  }
  const auto memory = std::make_shared<const kernels::ResidentMemory>(*std::move(attached));
  const std::span<const uint8_t> all = memory->bytes();
  if (all.size() != region.region_bytes) {
    return fail("the memory of an adapter has {} bytes, and is said to have {}", all.size(), region.region_bytes);
  }
  if (region.offset % model::kSliceAlignment != 0 || region.offset > all.size() ||
      region.bytes > all.size() - region.offset) {
    return fail("a slice of {} bytes from {} on, in memory of {}", region.bytes, region.offset, all.size());
  }
  Transfer& transfer = transfers_[number];
  transfer = {{region.digest, region.slot, region.bytes}, {}, std::nullopt};
  return whole(number, transfer, all.subspan(region.offset, region.bytes), memory, memory.get());
}

Result<void> RankAdapters::perform(uint64_t number, const AdapterConfirm& confirm) {
  if (auto ok = check(confirm.slot); !ok) return ok;
  if ((*held_)[static_cast<size_t>(confirm.slot)] == confirm.digest && !confirm.digest.empty()) {
    send(number, AdapterDone{confirm.digest, ""});
  } else {
    send(number, SliceWanted{});
  }
  return {};
}

Result<void> RankAdapters::perform(uint64_t number, const AdapterChunk& chunk) {
  const auto it = transfers_.find(number);
  if (it == transfers_.end()) return {};  // rolled back while the chunk was on its way
  Transfer& transfer = it->second;
  if (transfer.bytes.size() + chunk.bytes.size() > transfer.begin.bytes) {
    return fail("an adapter slice is longer than the {} bytes it was said to have", transfer.begin.bytes);
  }
  transfer.bytes.insert(transfer.bytes.end(), chunk.bytes.begin(), chunk.bytes.end());
  send(number, ChunkTaken{});
  if (transfer.bytes.size() != transfer.begin.bytes) return {};
  const auto slice = std::make_shared<const std::vector<uint8_t>>(std::exchange(transfer.bytes, {}));
  return whole(number, transfer, *slice, slice, nullptr);
}

// The slice is there, and stays as long as its owner; in `memory`, unless that is null.
Result<void> RankAdapters::whole(uint64_t number, Transfer& transfer, std::span<const uint8_t> slice,
                                 std::shared_ptr<const void> owner, const kernels::ResidentMemory* memory) {
  const auto check_digest = [&](const std::string& digest) -> Result<void> {
    if (digest == transfer.begin.digest) return {};
    return fail("the slice is of adapter {}, not of {}", digest, transfer.begin.digest);
  };
  if (model::is_slice(slice)) {
    const auto packed = model::read_slice(slice, plan_, setup_.rank, model_->slice_layout());
    if (!packed) return tl::unexpected(packed.error());
    if (auto ok = check_digest(packed->digest); !ok) return ok;
    const int32_t slot = transfer.begin.slot;
    const auto put = [&] { return model_->set_slice(slot, *packed, {slice.data(), std::move(owner), memory}); };
    if (auto ok = fill(transfer.begin, put); !ok) return ok;
    if (auto ok = done(number, transfer.begin); !ok) return ok;
    model_->record_slot(slot, *packed);
    return {};
  }
  auto part = model::decode_adapter(slice, plan_, setup_.rank);
  if (!part) return tl::unexpected(part.error());
  if (auto ok = check_digest(part->digest); !ok) return ok;
  if (!part->uses_dora()) return place(number, transfer.begin, *part);
  DoraValues norms;
  for (auto& values : model_->dora_squared_norms(*part)) norms.pairs.push_back({std::move(values)});
  transfer.part = *std::move(part);
  send(number, std::move(norms));
  return {};
}

Result<void> RankAdapters::perform(uint64_t number, DoraValues& factors) {
  const auto it = transfers_.find(number);
  if (it == transfers_.end() || !it->second.part) return {};
  model::Adapter& part = *it->second.part;
  size_t pair = 0;
  for (model::LoraLayer& layer : part.layers) {
    for (auto& lora : layer) {
      if (!lora) continue;
      if (pair == factors.pairs.size()) return fail("factors of {} layers only", pair);
      std::vector<float>& factor = factors.pairs[pair++].values;
      if (factor.size() != lora->magnitude.size()) {
        return fail("{} factors where the adapter has {}", factor.size(), lora->magnitude.size());
      }
      lora->dora_factor = std::move(factor);
    }
  }
  return place(number, it->second.begin, part);
}

Result<void> RankAdapters::place(uint64_t number, const AdapterBegin& begin, const model::Adapter& part) {
  if (auto ok = fill(begin, [&] { return model_->set_adapter(begin.slot, part); }); !ok) return ok;
  return done(number, begin);
}

// Keeps SlotDigests right whether or not `put` succeeds.
Result<void> RankAdapters::fill(const AdapterBegin& begin, const std::function<Result<void>()>& put) {
  std::string& held = (*held_)[static_cast<size_t>(begin.slot)];
  held.clear();
  if (auto ok = put(); !ok) return ok;
  held = begin.digest;
  return {};
}

Result<void> RankAdapters::done(uint64_t number, const AdapterBegin& begin) {
  AdapterDone done{begin.digest, ""};
  transfers_.erase(number);
  send(number, std::move(done));
  return {};
}

// Rolls a transfer back: forgets what has come of it, and empties its slot.
Result<void> RankAdapters::perform(uint64_t number, const AdapterClear& clear) {
  transfers_.erase(number);
  if (!check(clear.slot)) return {};
  (*held_)[static_cast<size_t>(clear.slot)].clear();
  model_->clear_adapter(clear.slot);
  return {};
}

void RankAdapters::send(uint64_t number, AdapterReport::What what) {
  const Envelope like{EnvelopeStream::adapters, setup_.rank, setup_.epoch, 0, true, {}};
  const AdapterReport report{number, std::move(what)};
  for (Envelope& part : split(like, comm::encode(report))) callbacks_.to_cache(std::move(part));
}

}  // namespace lorikeet::actors
