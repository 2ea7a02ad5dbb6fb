// What the adapter slots of a rank hold, written down where it outlives the rank's process (kernels/base/shared_memory.h),
// so that a successor finds the adapters that lie in device memory (kernels/lora/lora_slots.h) and need not be sent them.
//
//   1,024 bytes   what it is: a text, then zeros
//   a record for each slot, 8-byte aligned:
//     check (8)       a digest of what follows; anything else: the slot is empty, or was being filled
//     contents (8), digest (32), places (4), spans (4)
//     places          rank (4), scale (4, a float's bits) for each
//     spans           offset (8), bytes (8) for each, as many as are said
//
// All numbers are little-endian. A record is taken away before its slot is touched, and written when the slot is whole.
//
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/base/shared_memory.h"
#include "kernels/base/span_allocator.h"

namespace lorikeet::model {

struct SlotRecord {
  struct Place {  // of AdapterSlice::places
    int32_t rank = 0;
    float scale = 0;
  };
  std::string digest;                    // of the adapter: 32 hex digits
  uint64_t contents = 0;                 // a digest of the spans' bytes, as a device makes it
  std::vector<Place> places;             // [SlotRecordShape::places]
  std::vector<kernels::ByteSpan> spans;  // at most SlotRecordShape::spans
};

struct SlotRecordShape {
  std::string what;  // of which model, rank, device and layout the slots are: what else must be alike
  int32_t slots = 0;
  int32_t places = 0;  // of an adapter
  int32_t spans = 0;   // of an adapter, at most
};

class SlotRecords {
 public:
  // Of empty slots. Fails where the text takes 1,024 bytes or more.
  static Result<SlotRecords> make(const SlotRecordShape& shape);
  // What another process has written. Fails where it is of another shape.
  static Result<SlotRecords> attach(Descriptor descriptor, const SlotRecordShape& shape);

  void write(int32_t slot, const SlotRecord& record);
  void clear(int32_t slot);
  // Nothing where the slot is empty or its record is not whole. Its numbers are as they were written, and to be looked at
  // like all that comes from another process.
  std::optional<SlotRecord> read(int32_t slot) const;

  int32_t slots() const { return shape_.slots; }
  uint64_t bytes() const { return memory_.size(); }
  const Descriptor& descriptor() const { return memory_.descriptor(); }

 private:
  SlotRecords(const SlotRecordShape& shape, kernels::SharedMemory memory) : shape_(shape), memory_(std::move(memory)) {}

  unsigned char* at(int32_t slot) const;

  SlotRecordShape shape_;
  kernels::SharedMemory memory_;
};

}  // namespace lorikeet::model
