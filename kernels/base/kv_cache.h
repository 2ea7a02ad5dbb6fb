// The paged key-value cache of one rank on the device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lorikeet::kernels {

// How keys and values are stored. fp8 is e4m3 with a scale for every head of every position, by which its largest element
// is 448.
enum class KvDtype : uint8_t { f16, bf16, f8_e4m3 };

constexpr size_t size_of(KvDtype t) {
  return t == KvDtype::f8_e4m3 ? 1 : 2;
}

constexpr std::string_view name_of(KvDtype t) {
  constexpr std::string_view names[] = {"fp16", "bf16", "fp8"};
  return names[static_cast<size_t>(t)];
}

// One layer's keys and values. Both are [num_blocks, kv_heads, block_size, head_dim]; position p of a sequence is in
// the block that entry p / block_size of its block table names, at p % block_size.
struct KvCacheLayer {
  void* keys = nullptr;
  void* values = nullptr;
  KvDtype dtype = KvDtype::f16;
  int32_t kv_heads = 0;
  int32_t block_size = 16;  // a power of two, at least 8
  int32_t head_dim = 128;   // 64 or 128
  // Of fp8, otherwise null: [num_blocks, kv_heads, block_size], by which the head of a position is to be multiplied.
  float* key_scales = nullptr;
  float* value_scales = nullptr;
};

}  // namespace lorikeet::kernels
