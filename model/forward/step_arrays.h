// What a step's kernels read besides weights: one block of memory that the host fills and one copy brings to the
// device.
#pragma once

#include <cstdint>

#include "kernels/attention/attention_decode_cuda.h"
#include "model/forward/step_batch.h"

namespace lorikeet::model {

// Lays arrays of a block behind each other, 16-byte aligned.
class Carver {
 public:
  explicit Carver(void* base) : base_(reinterpret_cast<uintptr_t>(base)) {}  // null: only to count

  template <class T>
  T* take(int64_t count) {
    T* begin = reinterpret_cast<T*>(base_ + used_);
    used_ += (static_cast<uint64_t>(count) * sizeof(T) + 15) / 16 * 16;
    return begin;
  }

  uint64_t used() const { return used_; }

 private:
  uintptr_t base_;
  uint64_t used_ = 0;
};

// How much of everything a step has. A captured graph is made for one such size, and steps with less are filled up:
// tokens without a sequence attend to nothing and store nothing.
struct StepSize {
  int32_t tokens = 0;
  int32_t decode_rows = 0;
  int32_t prefill_rows = 0;
  int32_t query_tiles = 0;
  int32_t frequency_tables = 0;  // of RoPE, where rows have their own
  int32_t lora_rank = 0;         // up to which the rows' adapters may go; 0: there are none
  uint64_t lora_bytes = 0;       // of the description of the rows' adapters

  static StepSize of(const StepBatch& batch, bool own_frequencies);
  static StepSize of_decode(int32_t rows, bool own_frequencies);
};

// The arrays of a block, on the host or on the device. The block tables are the last: how long they are changes from
// step to step.
struct StepArrays {
  int32_t* token_ids;           // [tokens]: an id, or ~row of the previous step's draws
  int32_t* positions;           // [tokens]
  int32_t* kv_slots;            // [tokens]: block * block_size + place in the block; -1: none
  int32_t* adapter_slots;       // [tokens]; -1: none
  int32_t* frequency_table_of;  // [tokens]
  float* frequencies;           // [frequency_tables, head_dim / 2]

  int32_t* decode_tokens;         // [decode_rows]: the rows' tokens
  int32_t* decode_contexts;       // [decode_rows]
  int32_t* decode_table_begins;   // [decode_rows]: those of one sequence share a table
  int32_t* decode_runs;           // [decode_rows]: DecodeAttentionArgs::runs
  int32_t* decode_pieces;         // [DecodeDivision::entries(decode_rows)]
  int32_t* prefill_first_tokens;  // [prefill_rows]
  int32_t* prefill_counts;        // [prefill_rows]
  int32_t* prefill_starts;        // [prefill_rows]
  int32_t* prefill_table_begins;  // [prefill_rows]
  int32_t* tile_rows;             // [query_tiles]
  int32_t* tile_firsts;           // [query_tiles]
  unsigned char* lora_rows;       // [lora_bytes]
  int32_t* block_tables;

  StepArrays(const StepSize& size, int32_t head_dim, Carver& carver);
};

// Fills a block's arrays, apart from `frequencies` and `lora_rows`. Returns the entries of the block tables.
int64_t write_step(const StepBatch& batch, const StepSize& size, int32_t block_size,
                   const kernels::DecodeDivision& division, const StepArrays& to);

// Qwen v1: every sequence has its own frequencies of RoPE, by the size of its prompt. to: [rows, head_dim / 2].
void write_frequencies(const StepBatch& batch, const ModelConfig& config, float* to);

}  // namespace lorikeet::model
