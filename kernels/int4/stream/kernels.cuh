// The kernels for which x streams by element type, tokens and format of the weight. Included by .cu files; each element
// type is compiled in a file of its own.
#pragma once

#include "kernels/int4/stream/groups.cuh"
#include "kernels/int4/stream/int4_stream.cuh"

namespace lorikeet::kernels::int4 {

using StreamKernel = void (*)(StreamParams);
template <class T>
StreamKernel stream_kernel(int32_t m, int32_t scale_block, bool asymmetric);

// The columns for which stream_kernel is compiled when there are m tokens.
constexpr int32_t stream_columns(int32_t m) {
  int32_t columns = 8;
  while (columns < m) columns *= 2;
  return columns;
}

using GroupStreamKernel = void (*)(StreamParams, GroupStreamMaps);
template <class T>
GroupStreamKernel group_stream_kernel(int32_t m, int32_t scale_block, bool asymmetric);

constexpr int32_t group_stream_columns(int32_t m) {
  return m <= 8 ? 8 : m <= 16 ? 16 : m <= 32 ? 32 : m <= 48 ? 48 : 64;
}

}  // namespace lorikeet::kernels::int4
