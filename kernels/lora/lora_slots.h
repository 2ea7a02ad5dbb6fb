// Adapters in device memory: slots that are filled and emptied while steps run.
//
// Memory is reserved once; an adapter of true ranks takes as much of it as it needs, a span per layer, so that adapters
// of different ranks can come and go. Weights come in the kernels' layout, or are put into it on the host, and travel
// from pinned memory on streams of their own (lora_upload.h): steps neither wait for them nor share the device's
// multiprocessors with them, but for what a model digests once they are there. The tables that the kernels read are written last.
//
// Threads: one thread at a time calls load and clear, and another may run steps meanwhile, for slots that load and
// clear do not name: no step in flight may use the slot that is loaded or cleared. A slot may be used by steps that are
// queued after load has returned.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "kernels/base/device.h"
#include "kernels/base/dtype.h"
#include "kernels/base/polled_event.h"
#include "kernels/base/span_allocator.h"
#include "kernels/layer/embedding_cuda.h"
#include "kernels/lora/lora_cuda.h"
#include "kernels/lora/lora_upload.h"

namespace lorikeet::kernels {

inline constexpr int32_t kLoraProjections = 7;  // of a layer: q, k, v, o, gate, up, down

// The sizes of one rank's part of the model.
struct LoraGeometry {
  int32_t layers = 0;
  std::array<int32_t, kLoraProjections> inputs{};  // multiples of 8
  std::array<int32_t, kLoraProjections> outputs{};
  int32_t hidden = 0;
  int32_t vocab = 0;            // of the embedding
  int32_t lm_head_outputs = 0;  // this rank's rows of lm_head
  int32_t max_rank = 0;
  Dtype dtype = Dtype::f16;  // of the activations: F16 or BF16
};

// A pair on the host as PEFT stores it, each matrix in float32, fp16 or bf16. One of rank 0 is absent.
struct StoredLora {
  const void* a = nullptr;  // [rank, inputs]
  const void* b = nullptr;  // [outputs, rank]
  Dtype a_dtype = Dtype::f32, b_dtype = Dtype::f32;
  const float* dora_factor = nullptr;  // [outputs], DoRA; null otherwise
  int32_t rank = 0;
  int32_t inputs = 0;
  int32_t outputs = 0;
  float scale = 0;
};

// One rank's part of an adapter.
struct LoraAdapter {
  std::span<const StoredLora> pairs;  // [layers, kLoraProjections]
  StoredLora embedding;               // inputs: the vocabulary, outputs: hidden
  StoredLora lm_head;
};

// A pair in the layout of the device (kernels/lora/lora_layout.h; of an embedding as kernels/layer/embedding_cuda.h has
// it, A and B of 16-bit floats) and in its type, anywhere on the host. One of rank 0 is absent.
struct PackedLora {
  const void* a = nullptr;
  const void* b = nullptr;
  int32_t rank = 0;
  int32_t inputs = 0;
  int32_t outputs = 0;
  float scale = 0;
};

// One rank's part of an adapter without DoRA, ready to be copied.
struct PackedLoraAdapter {
  std::span<const PackedLora> pairs;  // [layers, kLoraProjections]
  PackedLora embedding;               // inputs: the vocabulary, outputs: hidden
  PackedLora lm_head;
  const ResidentMemory* memory = nullptr;  // that all of it lies in; null: it lies anywhere
};

// A pair that is in device memory already, in that layout. One of rank 0 is absent.
struct HeldLora {
  int32_t rank = 0;
  int32_t inputs = 0;
  int32_t outputs = 0;
  float scale = 0;
};

struct HeldLoraAdapter {
  std::span<const HeldLora> pairs;  // [layers, kLoraProjections]
  HeldLora embedding;               // inputs: the vocabulary, outputs: hidden
  HeldLora lm_head;
};

class LoraSlots {
 public:
  // Reserves `bytes` of device memory for the weights of up to `slots` adapters, and the tables. memory: as many bytes to
  // put the weights into; empty: its own. longest_wait: for any copy of a load.
  static Result<LoraSlots> make(const LoraGeometry& geometry, int32_t slots, uint64_t bytes, DeviceBuffer memory = {},
                                std::chrono::milliseconds longest_wait = PolledEvent::kLongestWait);

  // Bytes that an adapter of this rank takes that has every projection but neither embedding nor lm_head.
  static uint64_t adapter_bytes(const LoraGeometry& geometry, int32_t rank);

  // Puts an adapter into a slot, in place of what it held. Returns when it can be used; the calling thread sleeps while
  // copies are under way. Fails, and leaves the slot empty, where shapes are not the model's, where values do not fit
  // the activations' type, and where memory does not suffice; also where the device does not end a copy in time, and until it
  // has ended it: nothing new is put where it may be writing still.
  Result<void> load(int32_t slot, const LoraAdapter& adapter);
  // The same of what is packed. Its values are not looked at: who packs them does.
  Result<void> load(int32_t slot, const PackedLoraAdapter& adapter);
  // Takes into an empty slot what other slots over the same memory, of the same geometry, had put into `spans` of it. Fails,
  // and leaves the slot empty, where that cannot be.
  Result<void> adopt(int32_t slot, const HeldLoraAdapter& adapter, std::span<const ByteSpan> spans);
  void clear(int32_t slot);

  // Where in the memory a slot's weights are: a span per layer that has any, then lm_head's and the embedding's.
  std::span<const ByteSpan> spans(int32_t slot) const { return spans_[static_cast<size_t>(slot)]; }
  const DeviceBuffer& memory() const { return memory_; }
  const Stream& stream() const { return stream_; }  // of what is packed here, and of all tables

  int32_t slots() const { return static_cast<int32_t>(spans_.size()); }
  uint64_t used_bytes() const { return allocator_.used(); }
  uint64_t capacity_bytes() const { return allocator_.capacity(); }

  // Per slot, for LoraRowPlan: the largest rank among the projections and lm_head; 0: empty.
  std::span<const int32_t> ranks() const { return ranks_; }

  // What the kernels read.
  DeviceLoraTable table() const { return {table_.as<DeviceLora>(), entries_per_slot()}; }
  const DeviceEmbeddingLora* embedding_table() const { return embedding_table_.as<DeviceEmbeddingLora>(); }
  int32_t entry(int32_t layer, int32_t projection) const { return layer * kLoraProjections + projection; }
  int32_t lm_head_entry() const { return geometry_.layers * kLoraProjections; }

 private:
  // Fills `out` with items [first, first + count) of what is sent.
  using Fill = std::function<void(int64_t first, int64_t count, void* out)>;

  LoraSlots(const LoraGeometry& geometry, int32_t slots, uint64_t bytes);
  int32_t entries_per_slot() const { return geometry_.layers * kLoraProjections + 1; }
  uint64_t pair_bytes(const StoredLora& pair) const;
  uint64_t embedding_bytes(int32_t rank) const;

  Result<void> empty(int32_t slot);
  template <class Adapter>
  Result<void> check(const Adapter& adapter) const;
  template <class Adapter, class Allocate, class Put>
  Result<void> place(const Adapter& adapter, const Allocate& allocate, const Put& put);
  template <class Adapter>
  Result<void> finish(int32_t slot, const Adapter& adapter);
  Result<void> copy(int32_t slot, const PackedLoraAdapter& adapter);
  Result<void> upload(int32_t slot, const LoraAdapter& adapter);
  Result<unsigned char*> allocate(int32_t slot, uint64_t bytes);
  Result<DeviceLora> send_pair(const StoredLora& pair, unsigned char* to, const std::string& name);
  Result<DeviceEmbeddingLora> send_embedding(const StoredLora& pair, unsigned char* to);
  Result<void> send(unsigned char* to, int64_t items, uint64_t item_bytes, const std::string& name, const Fill& fill);
  Result<void> settled();
  Result<void> write_tables(int32_t slot);
  Result<void> wait();

  LoraGeometry geometry_;
  SpanAllocator allocator_;
  std::vector<std::vector<ByteSpan>> spans_;  // [slots]
  std::vector<int32_t> ranks_;                // [slots]
  DeviceBuffer memory_, table_, embedding_table_;
  Stream stream_;
  PolledEvent done_;
  std::chrono::milliseconds longest_wait_{};
  bool late_ = false;  // the stream did not come to done_ in time

  // Pieces of weights on their way: pinned memory that is filled again once its copy is done.
  static constexpr int kPieces = 4;
  PinnedBuffer pieces_;
  std::array<PolledEvent, kPieces> piece_copied_;
  int next_piece_ = 0;
  LoraUpload packed_upload_;
  PinnedBuffer entries_;          // [entries_per_slot] DeviceLora
  PinnedBuffer embedding_entry_;  // one DeviceEmbeddingLora
};

}  // namespace lorikeet::kernels
