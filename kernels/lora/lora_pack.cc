#include "kernels/lora/lora_pack.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/base/rounding.h"
#include "kernels/lora/lora_convert_simd.h"
#include "kernels/lora/lora_layout.h"

namespace lorikeet::kernels {

LoraConvertLoop* lora_convert_loop(CpuIsa isa) {
  return loop_for<LoraConvertLoop>(isa, [](auto set) { return lora_convert_for<set()>(); });
}

}  // namespace lorikeet::kernels

namespace lorikeet::kernels::lora {
namespace {

constexpr int32_t kRanksAtOnce = 64;  // that are converted before they are moved

void convert_plain(const unsigned char* values, Dtype from, int64_t count, Dtype to, unsigned char* out) {
  for (int64_t i = 0; i < count; i++) {
    const float value = load_float(values, from, static_cast<size_t>(i));
    if (to == Dtype::f32) {
      std::memcpy(out + 4 * i, &value, sizeof value);
    } else {
      const uint16_t bits = to == Dtype::f16 ? float_to_half(value) : float_to_bf16(value);
      std::memcpy(out + 2 * i, &bits, sizeof bits);
    }
  }
}

// Four neighbours of 32 bits, of which each is two ranks of an output.
using Pairs [[gnu::vector_size(16)]] = uint32_t;

// Ranks [0, valid) at `from`, of kRankTile; zeros for those that are not there.
Pairs ranks_at(const uint16_t* from, int32_t valid) {
  Pairs pairs{};
  std::memcpy(&pairs, from, valid >= kRankTile ? sizeof pairs : static_cast<size_t>(valid) * 2);
  return pairs;
}

// Four outputs whose ranks a lane's neighbours take: what was [output][pair of ranks] becomes [pair of ranks][output].
void store_transposed(const std::array<Pairs, 4>& rows, uint16_t* to) {
  const Pairs low01 = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5);
  const Pairs low23 = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5);
  const Pairs high01 = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7);
  const Pairs high23 = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
  const std::array<Pairs, 4> columns = {
      __builtin_shufflevector(low01, low23, 0, 1, 4, 5), __builtin_shufflevector(low01, low23, 2, 3, 6, 7),
      __builtin_shufflevector(high01, high23, 0, 1, 4, 5), __builtin_shufflevector(high01, high23, 2, 3, 6, 7)};
  std::memcpy(to, columns.data(), sizeof columns);
}

// Rank tile `block` of an output tile: rows[o * stride ..) are its ranks from there on, `valid` of them; the first
// `outputs` outputs are there.
void move_block(const uint16_t* rows, int64_t stride, int32_t outputs, int32_t valid, uint16_t* to) {
  for (int32_t g = 0; g < kRankTile; g++) {
    std::array<Pairs, 4> of_lanes{};
    for (int32_t i = 0; i < 4; i++) {
      const int32_t o = 8 * (g / 2) + 2 * i + g % 2;
      if (o < outputs) of_lanes[static_cast<size_t>(i)] = ranks_at(rows + o * stride, valid);
    }
    store_transposed(of_lanes, to + g * 32);
  }
}

}  // namespace

void convert_floats(const void* values, Dtype from, int64_t first, int64_t count, Dtype to, void* out) {
  static LoraConvertLoop* const loop = lora_convert_loop(best_cpu_isa());
  const auto* begin = static_cast<const unsigned char*>(values) + first * static_cast<int64_t>(size_of(from));
  if (from == to) {
    std::memcpy(out, begin, static_cast<size_t>(count) * size_of(from));
  } else if (loop != nullptr) {
    loop(begin, from, count, to, out);
  } else {
    convert_plain(begin, from, count, to, static_cast<unsigned char*>(out));
  }
}

void convert(const void* values, Dtype from, int64_t first, int64_t count, Dtype dtype, uint16_t* out) {
  convert_floats(values, from, first, count, dtype, out);
}

namespace {

// Rank tile `tile` of A.
void pack_tile(const StoredFactor& a, int32_t rank, int32_t inputs, int32_t tile, Dtype dtype, uint16_t* out) {
  constexpr int32_t kInputsAtOnce = 16 * kInputBlock;
  std::array<uint16_t, kInputsAtOnce> row{};
  const int32_t blocks = input_blocks(inputs);
  for (int32_t g = 0; g < kRankTile; g++) {
    const int32_t r = tile * kRankTile + g;
    const int64_t first = r * a.stride;
    for (int32_t begin = 0; begin < blocks * kInputBlock; begin += kInputsAtOnce) {
      const int32_t there = r < rank ? std::clamp(inputs - begin, 0, kInputsAtOnce) : 0;
      if (there > 0) convert_floats(a.values, a.dtype, first + begin, there, dtype, row.data());
      std::fill(row.begin() + there, row.end(), uint16_t{0});
      const int32_t last = std::min(kInputsAtOnce / kInputBlock, blocks - begin / kInputBlock);
      for (int32_t block = 0; block < last; block++) {
        uint16_t* to = out + (static_cast<int64_t>(begin / kInputBlock + block) * kRankTile + g) * kInputBlock;
        std::memcpy(to, row.data() + block * kInputBlock, kInputBlock * sizeof(uint16_t));
      }
    }
  }
}

}  // namespace

void pack_a_tile(const void* a, Dtype from, int32_t rank, int32_t inputs, int32_t tile, Dtype dtype, uint16_t* out) {
  pack_tile({a, from, inputs}, rank, inputs, tile, dtype, out);
}

bool pack_a(const StoredFactor& a, int32_t rank, int32_t inputs, Dtype dtype, uint16_t* out) {
  const uint64_t size = a_tile_bytes(inputs) / 2;
  bool finite = true;
  for (int32_t tile = 0; tile < rank_tiles(rank); tile++, out += size) {
    pack_tile(a, rank, inputs, tile, dtype, out);
    finite = all_finite(out, size, dtype) && finite;
  }
  return finite;
}

void pack_b_tile(const void* b, Dtype from, int32_t rank, int32_t outputs, int32_t tile, Dtype dtype, uint16_t* out) {
  std::array<uint16_t, kOutputTile * kRanksAtOnce> rows;  // [outputs of the tile, ranks that are done at once]
  const int32_t there = std::clamp(outputs - tile * kOutputTile, 0, kOutputTile);
  for (int32_t first = 0; first < rank; first += kRanksAtOnce) {
    const int32_t ranks = std::min(kRanksAtOnce, rank - first);
    const int64_t begin = static_cast<int64_t>(tile) * kOutputTile * rank + first;
    if (ranks == rank) {
      convert(b, from, begin, static_cast<int64_t>(there) * rank, dtype, rows.data());
    } else {
      for (int32_t o = 0; o < there; o++) {
        convert(b, from, begin + static_cast<int64_t>(o) * rank, ranks, dtype, rows.data() + o * ranks);
      }
    }
    for (int32_t r = 0; r < ranks; r += kRankTile, out += kBlockBytes / 2) {
      move_block(rows.data() + r, ranks, there, std::min(kRankTile, ranks - r), out);
    }
  }
}

void pack_embedding_a(const StoredFactor& a, int32_t rank, int64_t first, int64_t count, Dtype dtype, uint16_t* out) {
  constexpr int64_t kAtOnce = 256;
  std::array<uint16_t, kAtOnce> column{};
  for (int64_t begin = 0; begin < count; begin += kAtOnce) {
    const int64_t some = std::min(kAtOnce, count - begin);
    for (int32_t r = 0; r < rank; r++) {
      convert_floats(a.values, a.dtype, r * a.stride + first + begin, some, dtype, column.data());
      for (int64_t i = 0; i < some; i++) out[(begin + i) * rank + r] = column[static_cast<size_t>(i)];
    }
  }
}

bool pack_b(const StoredFactor& b, int32_t rank, int32_t outputs, Dtype dtype, uint16_t* out) {
  const uint64_t size = b_tile_bytes(rank) / 2;
  bool finite = true;
  for (int32_t tile = 0; tile < output_tiles(outputs); tile++, out += size) {
    pack_b_tile(b.values, b.dtype, rank, outputs, tile, dtype, out);
    finite = all_finite(out, size, dtype) && finite;
  }
  return finite;
}

uint64_t embedding_factor_bytes(int32_t rank, int32_t rows) {
  return round_up(2 * static_cast<uint64_t>(rank) * static_cast<uint64_t>(rows), uint64_t{kBlockBytes});
}

bool all_finite(const uint16_t* values, uint64_t count, Dtype dtype) {
  const uint16_t exponent = dtype == Dtype::f16 ? 0x7c00 : 0x7f80;
  uint16_t found = 0;  // no early end: the loop vectorises
  for (uint64_t i = 0; i < count; i++) found |= (values[i] & exponent) == exponent ? 1 : 0;
  return found == 0;
}

}  // namespace lorikeet::kernels::lora
