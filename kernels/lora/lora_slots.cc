#include "kernels/lora/lora_slots.h"

#include <glog/logging.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "kernels/base/rounding.h"
#include "kernels/lora/lora_layout.h"
#include "kernels/lora/lora_pack.h"

namespace lorikeet::kernels {
namespace {

constexpr uint64_t kAlignment = 512;
constexpr uint64_t kPieceBytes = 1 << 20;
constexpr const char* kProjectionNames[kLoraProjections] = {"q", "k", "v", "o", "gate", "up", "down"};

constexpr uint64_t align_up(uint64_t bytes) {
  return round_up(bytes, kAlignment);
}
uint64_t factor_bytes(const StoredLora& pair) {
  return pair.dora_factor == nullptr ? 0 : align_up(static_cast<uint64_t>(pair.outputs) * sizeof(float));
}

template <class Pair>
Result<void> check_pair(const Pair& pair, int32_t inputs, int32_t outputs, int32_t max_rank, const std::string& name) {
  if (pair.rank == 0) return {};
  if (pair.rank < 0 || pair.rank > max_rank) {
    return fail("the adapter's {} has rank {}: 1 to {} are served", name, pair.rank, max_rank);
  }
  if (pair.inputs != inputs || pair.outputs != outputs) {
    return fail("the adapter's {} maps {} to {}, the model's {} to {}", name, pair.inputs, pair.outputs, inputs,
                outputs);
  }
  if constexpr (!std::is_same_v<Pair, HeldLora>) {
    if (pair.a == nullptr || pair.b == nullptr) return fail("the adapter's {} lacks A or B", name);
  }
  if (!std::isfinite(pair.scale)) return fail("the adapter's {} has a scale that is not finite", name);
  return {};
}

template <class Adapter>
int32_t largest_rank(const Adapter& adapter) {
  int32_t rank = adapter.lm_head.rank;
  for (const auto& pair : adapter.pairs) rank = std::max(rank, pair.rank);
  return rank;
}

// Of a pair without DoRA.
template <class Pair>
uint64_t matrix_bytes(const Pair& pair) {
  return pair.rank == 0 ? 0 : lora::a_bytes(pair.rank, pair.inputs) + lora::b_bytes(pair.rank, pair.outputs);
}

}  // namespace

LoraSlots::LoraSlots(const LoraGeometry& geometry, int32_t slots, uint64_t bytes)
    : geometry_(geometry),
      allocator_(bytes, kAlignment),
      spans_(static_cast<size_t>(slots)),
      ranks_(static_cast<size_t>(slots), 0) {}

Result<LoraSlots> LoraSlots::make(const LoraGeometry& geometry, int32_t slots, uint64_t bytes, DeviceBuffer given,
                                  std::chrono::milliseconds longest_wait) {
  CHECK_GE(slots, 0);
  CHECK(geometry.dtype == Dtype::f16 || geometry.dtype == Dtype::bf16);
  LoraSlots made(geometry, slots, bytes);
  uint64_t piece = kPieceBytes;
  for (const int32_t inputs : geometry.inputs) {
    CHECK_EQ(inputs % 8, 0);
    piece = std::max(piece, lora::a_tile_bytes(inputs));
  }
  CHECK_EQ(geometry.hidden % 8, 0);
  piece = align_up(std::max(piece, lora::a_tile_bytes(geometry.hidden)));
  const auto entry_bytes = static_cast<uint64_t>(made.entries_per_slot()) * sizeof(DeviceLora);

  if (given.data() == nullptr) {
    Result<DeviceBuffer> memory = DeviceBuffer::allocate(made.allocator_.capacity(), "the adapters' weights");
    if (!memory) return tl::unexpected(memory.error());
    given = std::move(*memory);
  }
  CHECK_GE(given.bytes(), made.allocator_.capacity());
  Result<DeviceBuffer> table =
      DeviceBuffer::allocate(static_cast<uint64_t>(slots) * entry_bytes, "the adapters' tables");
  if (!table) return tl::unexpected(table.error());
  Result<DeviceBuffer> embedding_table = DeviceBuffer::allocate(
      static_cast<uint64_t>(slots) * sizeof(DeviceEmbeddingLora), "the adapters' embedding table");
  if (!embedding_table) return tl::unexpected(embedding_table.error());
  Result<PinnedBuffer> pieces = PinnedBuffer::allocate(kPieces * piece, "adapters on their way");
  if (!pieces) return tl::unexpected(pieces.error());
  Result<PinnedBuffer> entries = PinnedBuffer::allocate(entry_bytes, "an adapter's table");
  if (!entries) return tl::unexpected(entries.error());
  Result<PinnedBuffer> embedding_entry =
      PinnedBuffer::allocate(sizeof(DeviceEmbeddingLora), "an adapter's embedding entry");
  if (!embedding_entry) return tl::unexpected(embedding_entry.error());
  Result<Stream> stream = Stream::make();
  if (!stream) return tl::unexpected(stream.error());
  Result<PolledEvent> done = PolledEvent::make();
  if (!done) return tl::unexpected(done.error());
  Result<LoraUpload> upload = LoraUpload::make(longest_wait);
  if (!upload) return tl::unexpected(upload.error());
  made.packed_upload_ = std::move(*upload);
  for (PolledEvent& event : made.piece_copied_) {
    Result<PolledEvent> copied = PolledEvent::make();
    if (!copied) return tl::unexpected(copied.error());
    event = std::move(*copied);
  }
  made.memory_ = std::move(given);
  made.table_ = std::move(*table);
  made.embedding_table_ = std::move(*embedding_table);
  made.pieces_ = std::move(*pieces);
  made.entries_ = std::move(*entries);
  made.embedding_entry_ = std::move(*embedding_entry);
  made.stream_ = std::move(*stream);
  made.done_ = std::move(*done);
  made.longest_wait_ = longest_wait;
  for (int32_t slot = 0; slot < slots; slot++) made.clear(slot);
  return made;
}

uint64_t LoraSlots::adapter_bytes(const LoraGeometry& geometry, int32_t rank) {
  uint64_t bytes = 0;
  for (size_t p = 0; p < kLoraProjections; p++) {
    bytes += lora::a_bytes(rank, geometry.inputs[p]) + lora::b_bytes(rank, geometry.outputs[p]);
  }
  return bytes * static_cast<uint64_t>(geometry.layers);
}

uint64_t LoraSlots::pair_bytes(const StoredLora& pair) const {
  if (pair.rank == 0) return 0;
  return lora::a_bytes(pair.rank, pair.inputs) + lora::b_bytes(pair.rank, pair.outputs) + factor_bytes(pair);
}

uint64_t LoraSlots::embedding_bytes(int32_t rank) const {
  return lora::embedding_factor_bytes(rank, geometry_.vocab) + lora::embedding_factor_bytes(rank, geometry_.hidden);
}

template <class Adapter>
Result<void> LoraSlots::check(const Adapter& adapter) const {
  const auto pairs = static_cast<size_t>(geometry_.layers) * kLoraProjections;
  if (adapter.pairs.size() != pairs) {
    return fail("the adapter has {} pairs for {} layers of {}", adapter.pairs.size(), geometry_.layers,
                kLoraProjections);
  }
  for (size_t i = 0; i < pairs; i++) {
    const size_t p = i % kLoraProjections;
    Result<void> checked = check_pair(adapter.pairs[i], geometry_.inputs[p], geometry_.outputs[p], geometry_.max_rank,
                                      fmt::format("layer {} {}", i / kLoraProjections, kProjectionNames[p]));
    if (!checked) return checked;
  }
  Result<void> checked = check_pair(adapter.embedding, geometry_.vocab, geometry_.hidden,
                                    std::min(geometry_.max_rank, kMaxEmbeddingLoraRank), "embedding");
  if (!checked) return checked;
  return check_pair(adapter.lm_head, geometry_.hidden, geometry_.lm_head_outputs, geometry_.max_rank, "lm_head");
}

Result<void> LoraSlots::load(int32_t slot, const LoraAdapter& adapter) {
  Result<void> uploaded = empty(slot);
  if (!uploaded) return uploaded;
  uploaded = check(adapter);
  if (uploaded) uploaded = upload(slot, adapter);
  if (uploaded) uploaded = finish(slot, adapter);
  if (uploaded) return uploaded;
  // Copies that are under way must not meet the next owner of the memory: they are waited for, or settled() knows of them.
  if (!late_) static_cast<void>(wait());
  clear(slot);
  return uploaded;
}

Result<void> LoraSlots::load(int32_t slot, const PackedLoraAdapter& adapter) {
  Result<void> copied = empty(slot);
  if (!copied) return copied;
  copied = check(adapter);
  if (copied) copied = copy(slot, adapter);
  if (copied) copied = finish(slot, adapter);
  if (!copied) clear(slot);
  return copied;
}

Result<void> LoraSlots::adopt(int32_t slot, const HeldLoraAdapter& adapter, std::span<const ByteSpan> spans) {
  Result<void> placed = empty(slot);
  if (!placed) return placed;
  placed = check(adapter);
  size_t taken = 0;
  const auto take = [&](uint64_t bytes) -> Result<unsigned char*> {
    if (taken == spans.size()) return fail("the adapter is said to lie in {} places only", spans.size());
    const ByteSpan& span = spans[taken++];
    if (span.bytes != align_up(bytes) || !allocator_.take(span)) {
      return fail("{} bytes of the adapter cannot lie at {} in {} bytes", bytes, span.offset, span.bytes);
    }
    spans_[static_cast<size_t>(slot)].push_back(span);
    return memory_.as<unsigned char>() + span.offset;
  };
  if (placed) placed = place(adapter, take, [](const HeldLora&, unsigned char*, uint64_t, uint64_t) {});
  if (placed && taken != spans.size()) placed = fail("the adapter is said to lie in {} places", spans.size());
  if (placed) placed = finish(slot, adapter);
  if (!placed) clear(slot);
  return placed;
}

template <class Adapter>
Result<void> LoraSlots::finish(int32_t slot, const Adapter& adapter) {
  Result<void> written = write_tables(slot);
  if (written) ranks_[static_cast<size_t>(slot)] = largest_rank(adapter);
  return written;
}

// Writes the tables' entries. allocate(bytes): a place for so many. put(pair, to, a_bytes, b_bytes): A is to lie at `to`,
// B behind it.
template <class Adapter, class Allocate, class Put>
Result<void> LoraSlots::place(const Adapter& adapter, const Allocate& allocate, const Put& put) {
  const auto place_pair = [&](const auto& pair, unsigned char* to) {
    DeviceLora entry;
    entry.rank = pair.rank;
    entry.scale = pair.scale;
    entry.a = to;
    const uint64_t a_bytes = lora::a_bytes(pair.rank, pair.inputs);
    entry.b = to + a_bytes;
    put(pair, to, a_bytes, lora::b_bytes(pair.rank, pair.outputs));
    return entry;
  };
  auto* entries = entries_.as<DeviceLora>();
  for (int32_t layer = 0; layer < geometry_.layers; layer++) {
    const auto pairs = adapter.pairs.subspan(static_cast<size_t>(layer) * kLoraProjections, kLoraProjections);
    uint64_t bytes = 0;
    for (const auto& pair : pairs) bytes += matrix_bytes(pair);
    if (bytes == 0) continue;
    const Result<unsigned char*> allocated = allocate(bytes);
    if (!allocated) return tl::unexpected(allocated.error());
    unsigned char* to = *allocated;
    for (int32_t p = 0; p < kLoraProjections; p++) {
      const auto& pair = pairs[static_cast<size_t>(p)];
      if (pair.rank == 0) continue;
      entries[entry(layer, p)] = place_pair(pair, to);
      to += matrix_bytes(pair);
    }
  }
  if (adapter.lm_head.rank > 0) {
    const Result<unsigned char*> allocated = allocate(matrix_bytes(adapter.lm_head));
    if (!allocated) return tl::unexpected(allocated.error());
    entries[lm_head_entry()] = place_pair(adapter.lm_head, *allocated);
  }
  if (const auto& embedding = adapter.embedding; embedding.rank > 0) {
    const Result<unsigned char*> allocated = allocate(embedding_bytes(embedding.rank));
    if (!allocated) return tl::unexpected(allocated.error());
    DeviceEmbeddingLora made;
    made.rank = embedding.rank;
    made.scale = embedding.scale;
    made.a = *allocated;
    const uint64_t a_bytes = lora::embedding_factor_bytes(embedding.rank, geometry_.vocab);
    made.b = *allocated + a_bytes;
    put(embedding, *allocated, a_bytes, lora::embedding_factor_bytes(embedding.rank, geometry_.hidden));
    *embedding_entry_.as<DeviceEmbeddingLora>() = made;
  }
  return {};
}

// All memory is there before the first copy begins.
Result<void> LoraSlots::copy(int32_t slot, const PackedLoraAdapter& adapter) {
  std::vector<UploadPart> parts;
  // Parts that lie behind each other on both sides are one.
  const auto add = [&parts](void* to, const void* from, uint64_t bytes) {
    if (!parts.empty()) {
      UploadPart& last = parts.back();
      if (static_cast<unsigned char*>(last.to) + last.bytes == to &&
          static_cast<const unsigned char*>(last.from) + last.bytes == from) {
        last.bytes += bytes;
        return;
      }
    }
    parts.push_back({to, from, bytes});
  };
  const auto put = [&](const PackedLora& pair, unsigned char* to, uint64_t a_bytes, uint64_t b_bytes) {
    add(to, pair.a, a_bytes);
    add(to + a_bytes, pair.b, b_bytes);
  };
  if (auto placed = place(
          adapter, [&](uint64_t bytes) { return allocate(slot, bytes); }, put);
      !placed)
    return placed;
  return packed_upload_.copy(parts, adapter.memory);
}

// Where its tables cannot be written, no kernel reads them all the same: the slot has no ranks, and who loads it next
// writes them.
void LoraSlots::clear(int32_t slot) {
  Result<void> cleared = empty(slot);
  if (cleared) cleared = write_tables(slot);
  if (!cleared)
    LOG(WARNING) << "adapter slot " << slot << " is empty, and its tables are not: " << cleared.error().message;
}

// All but the slot's tables, which are written next. Fails where the device may be reading or writing still what would be
// written then.
Result<void> LoraSlots::empty(int32_t slot) {
  CHECK_GE(slot, 0);
  CHECK_LT(slot, slots());
  auto& spans = spans_[static_cast<size_t>(slot)];
  for (const ByteSpan& span : spans) allocator_.free(span);
  spans.clear();
  ranks_[static_cast<size_t>(slot)] = 0;
  if (auto ok = settled(); !ok) return ok;
  std::memset(entries_.data(), 0, entries_.bytes());
  *embedding_entry_.as<DeviceEmbeddingLora>() = {};
  return {};
}

Result<void> LoraSlots::settled() {
  if (auto ok = packed_upload_.settled(); !ok) return ok;
  if (late_ && !done_.ready()) return fail("the GPU has not ended an earlier copy of an adapter yet");
  late_ = false;
  return {};
}

Result<void> LoraSlots::upload(int32_t slot, const LoraAdapter& adapter) {
  auto* entries = entries_.as<DeviceLora>();
  for (int32_t layer = 0; layer < geometry_.layers; layer++) {
    const auto pairs = adapter.pairs.subspan(static_cast<size_t>(layer) * kLoraProjections, kLoraProjections);
    uint64_t bytes = 0;
    for (const StoredLora& pair : pairs) bytes += pair_bytes(pair);
    if (bytes == 0) continue;
    const Result<unsigned char*> allocated = allocate(slot, bytes);
    if (!allocated) return tl::unexpected(allocated.error());
    unsigned char* to = *allocated;
    for (int32_t p = 0; p < kLoraProjections; p++) {
      const StoredLora& pair = pairs[static_cast<size_t>(p)];
      if (pair.rank == 0) continue;
      const Result<DeviceLora> sent = send_pair(pair, to, fmt::format("layer {} {}", layer, kProjectionNames[p]));
      if (!sent) return tl::unexpected(sent.error());
      entries[entry(layer, p)] = *sent;
      to += pair_bytes(pair);
    }
  }
  if (adapter.lm_head.rank > 0) {
    const Result<unsigned char*> allocated = allocate(slot, pair_bytes(adapter.lm_head));
    if (!allocated) return tl::unexpected(allocated.error());
    const Result<DeviceLora> sent = send_pair(adapter.lm_head, *allocated, "lm_head");
    if (!sent) return tl::unexpected(sent.error());
    entries[lm_head_entry()] = *sent;
  }
  if (adapter.embedding.rank > 0) {
    const Result<unsigned char*> allocated = allocate(slot, embedding_bytes(adapter.embedding.rank));
    if (!allocated) return tl::unexpected(allocated.error());
    const Result<DeviceEmbeddingLora> sent = send_embedding(adapter.embedding, *allocated);
    if (!sent) return tl::unexpected(sent.error());
    *embedding_entry_.as<DeviceEmbeddingLora>() = *sent;
  }
  return {};
}

Result<unsigned char*> LoraSlots::allocate(int32_t slot, uint64_t bytes) {
  const std::optional<ByteSpan> span = allocator_.allocate(bytes);
  if (!span) {
    return fail(
        "out of adapter memory: {:.1f} MiB more are needed, {:.1f} of {:.1f} MiB are taken and the longest free span "
        "is {:.1f} MiB",
        static_cast<double>(bytes) / (1 << 20), static_cast<double>(used_bytes()) / (1 << 20),
        static_cast<double>(capacity_bytes()) / (1 << 20), static_cast<double>(allocator_.longest_free()) / (1 << 20));
  }
  spans_[static_cast<size_t>(slot)].push_back(*span);
  return memory_.as<unsigned char>() + span->offset;
}

Result<DeviceLora> LoraSlots::send_pair(const StoredLora& pair, unsigned char* to, const std::string& name) {
  DeviceLora entry;
  entry.rank = pair.rank;
  entry.scale = pair.scale;
  entry.a = to;
  const uint64_t a_tile = lora::a_tile_bytes(pair.inputs);
  Result<void> sent = send(to, lora::rank_tiles(pair.rank), a_tile, name, [&](int64_t first, int64_t count, void* out) {
    for (int64_t i = 0; i < count; i++) {
      lora::pack_a_tile(pair.a, pair.a_dtype, pair.rank, pair.inputs, static_cast<int32_t>(first + i), geometry_.dtype,
                        static_cast<uint16_t*>(out) + static_cast<uint64_t>(i) * a_tile / 2);
    }
  });
  if (!sent) return tl::unexpected(sent.error());
  to += lora::a_bytes(pair.rank, pair.inputs);
  entry.b = to;
  const uint64_t b_tile = lora::b_tile_bytes(pair.rank);
  sent = send(to, lora::output_tiles(pair.outputs), b_tile, name, [&](int64_t first, int64_t count, void* out) {
    for (int64_t i = 0; i < count; i++) {
      lora::pack_b_tile(pair.b, pair.b_dtype, pair.rank, pair.outputs, static_cast<int32_t>(first + i), geometry_.dtype,
                        static_cast<uint16_t*>(out) + static_cast<uint64_t>(i) * b_tile / 2);
    }
  });
  if (!sent) return tl::unexpected(sent.error());
  if (pair.dora_factor == nullptr) return entry;
  to += lora::b_bytes(pair.rank, pair.outputs);
  entry.dora_factor = reinterpret_cast<const float*>(to);
  for (int32_t i = 0; i < pair.outputs; i++) {
    if (!std::isfinite(pair.dora_factor[i])) return fail("the adapter's {} has a DoRA factor that is not finite", name);
  }
  // As pairs of 16-bit halves, which any float may be: not looked at again.
  sent = send(to, pair.outputs, sizeof(float), "", [&](int64_t first, int64_t count, void* out) {
    std::memcpy(out, pair.dora_factor + first, static_cast<size_t>(count) * sizeof(float));
  });
  if (!sent) return tl::unexpected(sent.error());
  return entry;
}

Result<DeviceEmbeddingLora> LoraSlots::send_embedding(const StoredLora& pair, unsigned char* to) {
  DeviceEmbeddingLora entry;
  entry.rank = pair.rank;
  entry.scale = pair.scale;
  entry.a = to;
  const uint64_t row_bytes = 2 * static_cast<uint64_t>(pair.rank);
  Result<void> sent = send(to, pair.inputs, row_bytes, "embedding", [&](int64_t first, int64_t count, void* out) {
    lora::pack_embedding_a({pair.a, pair.a_dtype, pair.inputs}, pair.rank, first, count, geometry_.dtype,
                           static_cast<uint16_t*>(out));
  });
  if (!sent) return tl::unexpected(sent.error());
  to += lora::embedding_factor_bytes(pair.rank, pair.inputs);
  entry.b = to;
  sent = send(to, pair.outputs, row_bytes, "embedding", [&](int64_t first, int64_t count, void* out) {
    lora::convert(pair.b, pair.b_dtype, first * pair.rank, count * pair.rank, geometry_.dtype,
                  static_cast<uint16_t*>(out));
  });
  if (!sent) return tl::unexpected(sent.error());
  return entry;
}

Result<void> LoraSlots::send(unsigned char* to, int64_t items, uint64_t item_bytes, const std::string& name,
                             const Fill& fill) {
  const uint64_t piece_bytes = pieces_.bytes() / kPieces;
  const auto most = static_cast<int64_t>(piece_bytes / item_bytes);
  CHECK_GT(most, 0);
  for (int64_t first = 0; first < items; first += most) {
    const int64_t count = std::min(most, items - first);
    const uint64_t bytes = static_cast<uint64_t>(count) * item_bytes;
    unsigned char* piece = pieces_.as<unsigned char>() + static_cast<uint64_t>(next_piece_) * piece_bytes;
    const PolledEvent& copied = piece_copied_[static_cast<size_t>(next_piece_)];
    next_piece_ = (next_piece_ + 1) % kPieces;
    if (auto ok = copied.wait(longest_wait_); !ok) {
      done_.record(stream_);
      late_ = true;
      return ok;
    }
    fill(first, count, piece);
    if (!name.empty() && !lora::all_finite(reinterpret_cast<const uint16_t*>(piece), bytes / 2, geometry_.dtype)) {
      return fail("the adapter's {} has weights that are not finite as {}", name, name_of(geometry_.dtype));
    }
    copy_to_device(to + static_cast<uint64_t>(first) * item_bytes, piece, bytes, stream_);
    copied.record(stream_);
  }
  return {};
}

Result<void> LoraSlots::write_tables(int32_t slot) {
  const auto index = static_cast<uint64_t>(slot);
  copy_to_device(table_.as<unsigned char>() + index * entries_.bytes(), entries_.data(), entries_.bytes(), stream_);
  copy_to_device(embedding_table_.as<DeviceEmbeddingLora>() + index, embedding_entry_.data(),
                 sizeof(DeviceEmbeddingLora), stream_);
  return wait();
}

Result<void> LoraSlots::wait() {
  done_.record(stream_);
  Result<void> done = done_.wait(longest_wait_);
  late_ = !done;
  return done;
}

}  // namespace lorikeet::kernels
