#include "kernels/lora/lora_convert_simd.h"

#include <cstring>

#include "kernels/cpu/simd.h"

namespace lorikeet::kernels {
namespace {

template <class V, Dtype kFrom>
typename V::F load(const unsigned char* values, int64_t i) {
  if constexpr (kFrom == Dtype::f16) {
    return V::load_half(values + 2 * i);
  } else if constexpr (kFrom == Dtype::bf16) {
    return V::load_bf16(values + 2 * i);
  } else {
    return V::load(reinterpret_cast<const float*>(values + 4 * i));
  }
}

template <class V, Dtype kTo>
void store(unsigned char* out, int64_t i, typename V::F v) {
  if constexpr (kTo == Dtype::f16) {
    V::store_half(out + 2 * i, v);
  } else if constexpr (kTo == Dtype::bf16) {
    float floats[V::kLanes];
    uint16_t bits[V::kLanes];
    V::store(floats, v);
    for (int lane = 0; lane < V::kLanes; ++lane) bits[lane] = float_to_bf16(floats[lane]);
    std::memcpy(out + 2 * i, bits, sizeof bits);
  } else {
    V::store(reinterpret_cast<float*>(out + 4 * i), v);
  }
}

template <class V, Dtype kFrom, Dtype kTo>
void convert(const unsigned char* values, int64_t count, unsigned char* out) {
  int64_t i = 0;
  for (; i + V::kLanes <= count; i += V::kLanes) store<V, kTo>(out, i, load<V, kFrom>(values, i));
  for (; i < count; ++i) {
    const float value = load_float(values, kFrom, static_cast<size_t>(i));
    if constexpr (kTo == Dtype::f32) {
      std::memcpy(out + 4 * i, &value, sizeof value);
    } else {
      const uint16_t bits = kTo == Dtype::f16 ? float_to_half(value) : float_to_bf16(value);
      std::memcpy(out + 2 * i, &bits, sizeof bits);
    }
  }
}

template <class V, Dtype kFrom>
void convert_to(const unsigned char* values, int64_t count, Dtype to, unsigned char* out) {
  if (to == Dtype::f16) return convert<V, kFrom, Dtype::f16>(values, count, out);
  if (to == Dtype::bf16) return convert<V, kFrom, Dtype::bf16>(values, count, out);
  convert<V, kFrom, Dtype::f32>(values, count, out);
}

template <class V>
void convert_any(const void* values, Dtype from, int64_t count, Dtype to, void* out) {
  const auto* bytes = static_cast<const unsigned char*>(values);
  auto* to_bytes = static_cast<unsigned char*>(out);
  if (from == Dtype::f16) return convert_to<V, Dtype::f16>(bytes, count, to, to_bytes);
  if (from == Dtype::bf16) return convert_to<V, Dtype::bf16>(bytes, count, to, to_bytes);
  convert_to<V, Dtype::f32>(bytes, count, to, to_bytes);
}

}  // namespace

template <>
LoraConvertLoop* lora_convert_for<kSimdIsa>() {
  return &convert_any<Simd>;
}

}  // namespace lorikeet::kernels
