#include "actors/rank/rank_adapters.h"

#include <algorithm>
#include <utility>

#include "comm/codec/codec.h"

namespace lorikeet::actors {

RankAdapters::RankAdapters(Setup setup, model::ShardPlan plan, std::shared_ptr<model::RankModel> model,
                           std::function<void(Envelope)> to_cache)
    : setup_(setup), plan_(std::move(plan)), model_(std::move(model)), to_cache_(std::move(to_cache)), thread_([this] {
        run();
      }) {}

RankAdapters::~RankAdapters() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void RankAdapters::take(Envelope envelope) {
  {
    const std::lock_guard lock(mutex_);
    inbox_.push_back(std::move(envelope));
  }
  wake_.notify_one();
}

void RankAdapters::run() {
  for (;;) {
    Envelope envelope;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stop_ || !inbox_.empty(); });
      if (stop_) return;
      envelope = std::move(inbox_.front());
      inbox_.pop_front();
    }
    handle(std::move(envelope));
  }
}

void RankAdapters::handle(Envelope envelope) {
  const uint64_t number = envelope.step;
  Result<void> ok;
  switch (envelope.kind) {
    case EnvelopeKind::adapter_begin:
      ok = begin(number, envelope);
      break;
    case EnvelopeKind::adapter_chunk:
      ok = chunk(number, envelope);
      break;
    case EnvelopeKind::adapter_factors:
      ok = factors(number, std::move(envelope));
      break;
    case EnvelopeKind::adapter_clear:
      ok = clear(envelope);
      break;
    default:
      return;
  }
  if (ok) return;
  AdapterDone failed;
  if (const auto it = transfers_.find(number); it != transfers_.end()) failed.digest = it->second.begin.digest;
  failed.error = ok.error().message;
  transfers_.erase(number);
  send(EnvelopeKind::adapter_done, number, comm::encode(failed));
}

Result<void> RankAdapters::begin(uint64_t number, const Envelope& envelope) {
  auto begin = comm::decode<AdapterBegin>(envelope.bytes);
  if (!begin) return tl::unexpected(begin.error());
  if (begin->slot < 0 || begin->slot >= setup_.num_slots) {
    return fail("adapter slot {} of {}", begin->slot, setup_.num_slots);
  }
  if (begin->bytes == 0 || begin->bytes > kMaxMessageBytes) return fail("an adapter slice of {} bytes", begin->bytes);
  Transfer& transfer = transfers_[number];
  transfer = {*std::move(begin), {}, std::nullopt};
  transfer.bytes.reserve(transfer.begin.bytes);
  return {};
}

Result<void> RankAdapters::chunk(uint64_t number, const Envelope& envelope) {
  const auto it = transfers_.find(number);
  if (it == transfers_.end()) return {};  // rolled back while the chunk was on its way
  Transfer& transfer = it->second;
  if (transfer.bytes.size() + envelope.bytes.size() > transfer.begin.bytes) {
    return fail("an adapter slice is longer than the {} bytes it was said to have", transfer.begin.bytes);
  }
  transfer.bytes.insert(transfer.bytes.end(), envelope.bytes.begin(), envelope.bytes.end());
  send(EnvelopeKind::chunk_taken, number, {});
  return transfer.bytes.size() == transfer.begin.bytes ? decoded(number, transfer) : Result<void>();
}

Result<void> RankAdapters::decoded(uint64_t number, Transfer& transfer) {
  auto part = model::decode_adapter(transfer.bytes, plan_, setup_.rank);
  if (!part) return tl::unexpected(part.error());
  transfer.bytes = {};
  if (part->digest != transfer.begin.digest) {
    return fail("the slice is of adapter {}, not of {}", part->digest, transfer.begin.digest);
  }
  if (!part->uses_dora()) return place(number, transfer.begin, *part);
  DoraValues norms;
  for (auto& values : model_->dora_squared_norms(*part)) norms.pairs.push_back({std::move(values)});
  transfer.part = *std::move(part);
  send(EnvelopeKind::adapter_norms, number, comm::encode(norms));
  return {};
}

Result<void> RankAdapters::factors(uint64_t number, Envelope envelope) {
  const auto it = transfers_.find(number);
  auto bytes = assembler_.add(std::move(envelope));
  if (!bytes) return tl::unexpected(bytes.error());
  if (!*bytes || it == transfers_.end() || !it->second.part) return {};
  auto values = comm::decode<DoraValues>(**bytes);
  if (!values) return tl::unexpected(values.error());
  model::Adapter& part = *it->second.part;
  size_t pair = 0;
  for (model::LoraLayer& layer : part.layers) {
    for (auto& lora : layer) {
      if (!lora) continue;
      if (pair == values->pairs.size()) return fail("factors of {} layers only", pair);
      std::vector<float>& factor = values->pairs[pair++].values;
      if (factor.size() != lora->magnitude.size()) {
        return fail("{} factors where the adapter has {}", factor.size(), lora->magnitude.size());
      }
      lora->dora_factor = std::move(factor);
    }
  }
  return place(number, it->second.begin, part);
}

Result<void> RankAdapters::place(uint64_t number, const AdapterBegin& begin, const model::Adapter& part) {
  if (auto ok = model_->set_adapter(begin.slot, part); !ok) return ok;
  const AdapterDone done{begin.digest, ""};
  transfers_.erase(number);
  send(EnvelopeKind::adapter_done, number, comm::encode(done));
  return {};
}

// Rolls a transfer back: forgets what has come of it, and empties its slot.
Result<void> RankAdapters::clear(const Envelope& envelope) {
  const auto begin = comm::decode<AdapterBegin>(envelope.bytes);
  transfers_.erase(envelope.step);
  if (begin && begin->slot >= 0 && begin->slot < setup_.num_slots) model_->clear_adapter(begin->slot);
  return {};
}

void RankAdapters::send(EnvelopeKind kind, uint64_t number, std::vector<uint8_t> bytes) {
  const Envelope like{kind, setup_.rank, setup_.epoch, number, true, {}};
  for (Envelope& part : split(like, std::move(bytes))) to_cache_(std::move(part));
}

}  // namespace lorikeet::actors
