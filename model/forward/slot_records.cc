#include "model/forward/slot_records.h"

#include <glog/logging.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

namespace lorikeet::model {
namespace {

constexpr uint64_t kHeaderBytes = 1024;
constexpr uint64_t kDigestBytes = 32;
constexpr uint64_t kCheckBytes = 8;
constexpr uint64_t kFixedBytes = kCheckBytes + 8 + kDigestBytes + 4 + 4;
constexpr uint64_t kPlaceBytes = 8;
constexpr uint64_t kSpanBytes = 16;

uint64_t record_bytes(const SlotRecordShape& shape) {
  return kFixedBytes + static_cast<uint64_t>(shape.places) * kPlaceBytes +
         static_cast<uint64_t>(shape.spans) * kSpanBytes;
}

uint64_t all_bytes(const SlotRecordShape& shape) {
  return kHeaderBytes + static_cast<uint64_t>(shape.slots) * record_bytes(shape);
}

Result<std::string> header(const SlotRecordShape& shape) {
  if (shape.what.size() >= kHeaderBytes) return fail("{} bytes say what they are", shape.what.size());
  std::string text = shape.what;
  text.resize(kHeaderBytes);
  return text;
}

// FNV-1a (Fowler, Noll, Vo) of 64 bits, and never 0, which is an empty record's.
uint64_t check_of(const unsigned char* bytes, uint64_t count) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (uint64_t i = 0; i < count; ++i) hash = (hash ^ bytes[i]) * 0x100000001b3ULL;
  return std::max<uint64_t>(hash, 1);
}

// A process that dies between two of its stores leaves the first one behind it, and not the second alone.
void set_check(unsigned char* record, uint64_t check) {
  std::atomic_signal_fence(std::memory_order_seq_cst);
  std::memcpy(record, &check, sizeof check);
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

template <class T>
void put(unsigned char*& to, const T& value) {
  std::memcpy(to, &value, sizeof value);
  to += sizeof value;
}

template <class T>
T get(const unsigned char*& from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  from += sizeof value;
  return value;
}

}  // namespace

Result<SlotRecords> SlotRecords::make(const SlotRecordShape& shape) {
  const auto is = header(shape);
  if (!is) return tl::unexpected(is.error());
  auto memory = kernels::SharedMemory::make("lorikeet-adapter-slots", all_bytes(shape));
  if (!memory) return tl::unexpected(memory.error());
  std::memcpy(memory->data(), is->data(), is->size());
  return SlotRecords(shape, *std::move(memory));
}

Result<SlotRecords> SlotRecords::attach(Descriptor descriptor, const SlotRecordShape& shape) {
  const auto is = header(shape);
  if (!is) return tl::unexpected(is.error());
  auto memory = kernels::SharedMemory::attach(std::move(descriptor), all_bytes(shape));
  if (!memory) return tl::unexpected(memory.error());
  if (std::memcmp(memory->data(), is->data(), is->size()) != 0) {
    const auto* text = reinterpret_cast<const char*>(memory->data());
    return fail("they are of {}, not of {}", std::string(text, strnlen(text, kHeaderBytes)), shape.what);
  }
  return SlotRecords(shape, *std::move(memory));
}

unsigned char* SlotRecords::at(int32_t slot) const {
  CHECK_GE(slot, 0);
  CHECK_LT(slot, shape_.slots);
  return memory_.data() + kHeaderBytes + static_cast<uint64_t>(slot) * record_bytes(shape_);
}

void SlotRecords::clear(int32_t slot) {
  set_check(at(slot), 0);
}

void SlotRecords::write(int32_t slot, const SlotRecord& record) {
  CHECK_EQ(record.digest.size(), kDigestBytes);
  CHECK_EQ(record.places.size(), static_cast<size_t>(shape_.places));
  CHECK_LE(record.spans.size(), static_cast<size_t>(shape_.spans));
  unsigned char* const begin = at(slot);
  set_check(begin, 0);
  unsigned char* to = begin + kCheckBytes;
  put(to, record.contents);
  to = std::copy(record.digest.begin(), record.digest.end(), to);
  put(to, static_cast<uint32_t>(record.places.size()));
  put(to, static_cast<uint32_t>(record.spans.size()));
  for (const SlotRecord::Place& place : record.places) {
    put(to, place.rank);
    put(to, place.scale);
  }
  for (const kernels::ByteSpan& span : record.spans) {
    put(to, span.offset);
    put(to, span.bytes);
  }
  set_check(begin, check_of(begin + kCheckBytes, static_cast<uint64_t>(to - begin) - kCheckBytes));
}

std::optional<SlotRecord> SlotRecords::read(int32_t slot) const {
  const unsigned char* const begin = at(slot);
  const unsigned char* from = begin;
  const auto check = get<uint64_t>(from);
  if (check == 0) return std::nullopt;
  SlotRecord record;
  record.contents = get<uint64_t>(from);
  record.digest.assign(from, from + kDigestBytes);
  from += kDigestBytes;
  const auto places = get<uint32_t>(from), spans = get<uint32_t>(from);
  if (places != static_cast<uint32_t>(shape_.places) || spans > static_cast<uint32_t>(shape_.spans)) {
    return std::nullopt;
  }
  for (uint32_t i = 0; i < places; ++i) {
    record.places.push_back({get<int32_t>(from), get<float>(from)});
  }
  for (uint32_t i = 0; i < spans; ++i) record.spans.push_back({get<uint64_t>(from), get<uint64_t>(from)});
  if (check != check_of(begin + kCheckBytes, static_cast<uint64_t>(from - begin) - kCheckBytes)) return std::nullopt;
  return record;
}

}  // namespace lorikeet::model
