// The int4 product whose x streams beside the weights: how its launch is shaped, and its launch. The part of
// kernels/int4/decode/int4_decode.h for shapes with streams_x.
#pragma once

#include "kernels/int4/base/decode_shape.h"

namespace lorikeet::kernels {

// Whether the kernel of warpgroups was compiled for this device.
bool int4_group_stream_available();

// Int4DecodeDevice::quads of the current device, of which the rest is known.
int32_t int4_stream_clusters(const Int4DecodeDevice& device);

bool int4_stream_fits(const Int4DecodeWish& wish, const Int4DecodeDevice& device);

// All but `overlap`.
Int4DecodeShape shape_int4_stream(const PackedInt4Weight& weight, int32_t m, Dtype dtype, const Int4DecodeWish& wish,
                                  const Int4DecodeDevice& device);

// `shape` from shape_int4_stream for the same weight, m and dtype.
void int4_stream(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Int4DecodeShape& shape,
                 const Stream& stream);

}  // namespace lorikeet::kernels
