#include "model/forward/step_arrays.h"

#include <glog/logging.h>

#include <algorithm>
#include <vector>

#include "kernels/attention/attention_prefill_cuda.h"
#include "kernels/layer/rope.h"

namespace lorikeet::model {
namespace {

// What one row adds to the arrays.
class Writer {
 public:
  Writer(const StepBatch& batch, int32_t block_size, const StepArrays& to)
      : batch_(batch), block_size_(block_size), to_(to) {}

  void row(int32_t index, bool decoding) {
    const BatchRow& row = batch_.rows[static_cast<size_t>(index)];
    const int32_t first = batch_.first_tokens[static_cast<size_t>(index)];
    const auto count = static_cast<int32_t>(row.token_ids.size());
    const int32_t end = row.start + count;
    const int32_t blocks = (end + block_size_ - 1) / block_size_;
    CHECK_LE(static_cast<size_t>(blocks), row.block_table.size());
    for (int32_t i = 0; i < count; ++i) {
      const int32_t id = row.token_ids[static_cast<size_t>(i)];
      const int32_t position = row.start + i;
      if (id == kPendingToken) CHECK_GE(row.pending_row, 0);
      to_.token_ids[first + i] = id == kPendingToken ? ~row.pending_row : id;
      to_.positions[first + i] = position;
      to_.kv_slots[first + i] =
          row.block_table[static_cast<size_t>(position / block_size_)] * block_size_ + position % block_size_;
      to_.adapter_slots[first + i] = row.slot;
      to_.frequency_table_of[first + i] = index;
    }
    if (decoding) {
      for (int32_t i = 0; i < count; ++i) {
        to_.decode_tokens[decode_rows_] = first + i;
        to_.decode_contexts[decode_rows_] = row.start + i + 1;
        to_.decode_table_begins[decode_rows_] = static_cast<int32_t>(entries_);
        to_.decode_runs[decode_rows_++] = i + 1;
      }
    } else {
      const int32_t r = prefill_rows_++;
      to_.prefill_first_tokens[r] = first;
      to_.prefill_counts[r] = count;
      to_.prefill_starts[r] = row.start;
      to_.prefill_table_begins[r] = static_cast<int32_t>(entries_);
      for (int32_t query = 0; query < count; query += kernels::kPrefillQueryTile) {
        to_.tile_rows[tiles_] = r;
        to_.tile_firsts[tiles_++] = query;
      }
    }
    std::copy_n(row.block_table.begin(), blocks, to_.block_tables + entries_);
    entries_ += blocks;
  }

  int64_t entries() const { return entries_; }

 private:
  const StepBatch& batch_;
  const int32_t block_size_;
  const StepArrays& to_;
  int64_t entries_ = 0;
  int32_t decode_rows_ = 0;
  int32_t prefill_rows_ = 0;
  int32_t tiles_ = 0;
};

}  // namespace

StepSize StepSize::of(const StepBatch& batch, bool own_frequencies) {
  StepSize size;
  size.tokens = batch.tokens;
  size.decode_rows = batch.decode_rows;
  size.prefill_rows = batch.prefill_rows();
  size.query_tiles = batch.query_tiles;
  size.frequency_tables = own_frequencies ? static_cast<int32_t>(batch.rows.size()) : 0;
  return size;
}

StepSize StepSize::of_decode(int32_t rows, bool own_frequencies) {
  StepSize size;
  size.tokens = size.decode_rows = rows;
  size.frequency_tables = own_frequencies ? rows : 0;
  return size;
}

StepArrays::StepArrays(const StepSize& size, int32_t head_dim, Carver& carver)
    : token_ids(carver.take<int32_t>(size.tokens)),
      positions(carver.take<int32_t>(size.tokens)),
      kv_slots(carver.take<int32_t>(size.tokens)),
      adapter_slots(carver.take<int32_t>(size.tokens)),
      frequency_table_of(carver.take<int32_t>(size.tokens)),
      frequencies(carver.take<float>(int64_t{size.frequency_tables} * (head_dim / 2))),
      decode_tokens(carver.take<int32_t>(size.decode_rows)),
      decode_contexts(carver.take<int32_t>(size.decode_rows)),
      decode_table_begins(carver.take<int32_t>(size.decode_rows)),
      decode_runs(carver.take<int32_t>(size.decode_rows)),
      decode_pieces(carver.take<int32_t>(kernels::DecodeDivision::entries(size.decode_rows))),
      prefill_first_tokens(carver.take<int32_t>(size.prefill_rows)),
      prefill_counts(carver.take<int32_t>(size.prefill_rows)),
      prefill_starts(carver.take<int32_t>(size.prefill_rows)),
      prefill_table_begins(carver.take<int32_t>(size.prefill_rows)),
      tile_rows(carver.take<int32_t>(size.query_tiles)),
      tile_firsts(carver.take<int32_t>(size.query_tiles)),
      lora_rows(carver.take<unsigned char>(static_cast<int64_t>(size.lora_bytes))),
      block_tables(carver.take<int32_t>(0)) {}

int64_t write_step(const StepBatch& batch, const StepSize& size, int32_t block_size,
                   const kernels::DecodeDivision& division, const StepArrays& to) {
  Writer writer(batch, block_size, to);
  for (size_t place = 0; place < batch.order.size(); ++place) {
    writer.row(batch.order[place], place < static_cast<size_t>(batch.decoding));
  }
  for (int32_t token = batch.tokens; token < size.tokens; ++token) {
    to.token_ids[token] = to.positions[token] = to.frequency_table_of[token] = 0;
    to.kv_slots[token] = to.adapter_slots[token] = -1;
  }
  for (int32_t row = batch.decode_rows; row < size.decode_rows; ++row) {
    to.decode_tokens[row] = row;
    to.decode_contexts[row] = to.decode_table_begins[row] = 0;
    to.decode_runs[row] = 1;
  }
  division.write({to.decode_contexts, static_cast<size_t>(size.decode_rows)}, to.decode_pieces,
                 batch.decode_rows > batch.decoding);
  return writer.entries();
}

void write_frequencies(const StepBatch& batch, const ModelConfig& config, float* to) {
  for (const BatchRow& row : batch.rows) {
    const std::vector<float> table = kernels::rope_inverse_frequencies(
        config.head_dim,
        kernels::dynamic_ntk_base(config.rope_theta, config.head_dim, row.prompt_size, config.seq_length));
    to = std::copy(table.begin(), table.end(), to);
  }
}

}  // namespace lorikeet::model
