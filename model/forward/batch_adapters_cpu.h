// Adapters in the form that the CPU kernels take, and which of a step's tokens take which.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "kernels/lora/lora.h"
#include "model/adapter/adapter.h"
#include "model/adapter/adapter_slice.h"

namespace lorikeet::model {

// One rank's part of a pair, B transposed.
class SlotPair {
 public:
  explicit SlotPair(const LoraPair& pair);
  // Of a slice that stays at `bytes`.
  SlotPair(const SlicePair& pair, const uint8_t* bytes);

  kernels::LoraWeights weights() const;

 private:
  int32_t rank_, inputs_, outputs_;
  float scale_;
  std::vector<float> a_;               // [rank, inputs]
  std::vector<float> b_;               // [rank, outputs]
  std::vector<float> dora_factor_;     // [outputs] or empty
  const float* a_in_slice_ = nullptr;  // where the slice has them: in place of a_ and b_
  const float* b_in_slice_ = nullptr;
};

// What an adapter slot holds. It does not change while it is in the slot.
struct SlotAdapter {
  explicit SlotAdapter(const Adapter& part);
  // Of SliceLayout::cpu_f32; `owner` keeps its bytes where they are.
  SlotAdapter(const AdapterSlice& slice, const uint8_t* bytes, std::shared_ptr<const void> owner);

  std::vector<std::array<std::optional<SlotPair>, kNumProjections>> layers;
  std::optional<SlotPair> embedding, lm_head;
  std::shared_ptr<const void> owner;
};

// The adapters of a step: each distinct one with the tokens that take it.
class BatchAdapters {
 public:
  // adapter_of_token: null where a token takes the base model. The adapters must outlive this.
  explicit BatchAdapters(const std::vector<const SlotAdapter*>& adapter_of_token);

  std::vector<kernels::LoraGroup> of_projection(int32_t layer, Projection p) const;

  // Rows are indices into `tokens`, which ascend.
  std::vector<kernels::LoraGroup> of_lm_head(const std::vector<int32_t>& tokens) const;

  // Adds what the adapters change in the embeddings of ids [tokens]: out [tokens, hidden].
  void add_embedding(const int32_t* ids, float* out) const;

 private:
  struct Group {
    const SlotAdapter* adapter;
    std::vector<int32_t> tokens;
  };
  std::vector<Group> groups_;
};

}  // namespace lorikeet::model
