// The matrix steps of Hopper's warpgroups (PTX ISA, wgmma): d [64 x N] += a [64 x 16] * b [16 x N] with a in registers
// and b in shared memory. Included by .cu files only; compiled for sm_90a alone.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace lorikeet::kernels::device {

// Orders what the warps did to registers before the steps that follow.
__device__ __forceinline__ void warpgroup_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void warpgroup_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most kPending committed groups are unfinished.
template <int kPending>
__device__ __forceinline__ void warpgroup_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// device::barrier_arrive without a branch, for between matrix steps: around a branch the compiler waits for them.
__device__ __forceinline__ void barrier_arrive_if(uint32_t barrier, bool arrives) {
  asm volatile(
      "{\n.reg .b64 state;\n.reg .pred arrives;\nsetp.ne.b32 arrives, %1, 0;\n"
      "@arrives mbarrier.arrive.shared::cta.b64 state, [%0];\n}\n" ::"r"(barrier),
      "r"(static_cast<int>(arrives))
      : "memory");
}

// Keeps the compiler from reading or writing sums before the wait in front of it.
template <int kSums>
__device__ __forceinline__ void fence_sums(float (&sums)[kSums]) {
#pragma unroll
  for (int i = 0; i < kSums; i++) asm volatile("" : "+f"(sums[i])::"memory");
}

// b lies as [N][64] 16-bit elements in rows of 128 bytes, swizzled as the tensor copies with SWIZZLE_128B leave them;
// `address`: of the step's 16 elements in the first row. Rows start at a multiple of 1,024.
__device__ __forceinline__ uint64_t swizzled_operand(uint32_t address) {
  constexpr uint64_t kEightRows = 1024 >> 4;
  constexpr uint64_t kSwizzle128 = 1;
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | uint64_t{1} << 16 | kEightRows << 32 | kSwizzle128 << 62;
}
// The operand that lies `bytes` (a multiple of 16) behind another.
__device__ __forceinline__ uint64_t operand_behind(uint64_t operand, uint32_t bytes) {
  return (operand & 0xffffffff00000000) | (static_cast<uint32_t>(operand) + (bytes >> 4));  // never carries
}

// The instruction's text and operands. Element types and widths are parts of the text, hence macros.
#define LORIKEET_OUT_4(i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define LORIKEET_OUT_16(i) LORIKEET_OUT_4(i), LORIKEET_OUT_4((i) + 4), LORIKEET_OUT_4((i) + 8), LORIKEET_OUT_4((i) + 12)
#define LORIKEET_OUT_8 LORIKEET_OUT_4(0), LORIKEET_OUT_4(4)
#define LORIKEET_OUT_24 LORIKEET_OUT_16(0), LORIKEET_OUT_4(16), LORIKEET_OUT_4(20)
#define LORIKEET_OUT_32 LORIKEET_OUT_16(0), LORIKEET_OUT_16(16)
#define LORIKEET_OUT_40 LORIKEET_OUT_32, LORIKEET_OUT_4(32), LORIKEET_OUT_4(36)
#define LORIKEET_OUT_48 LORIKEET_OUT_32, LORIKEET_OUT_16(32)
#define LORIKEET_OUT_64 LORIKEET_OUT_16(0), LORIKEET_OUT_16(16), LORIKEET_OUT_16(32), LORIKEET_OUT_16(48)
#define LORIKEET_OUT_96 LORIKEET_OUT_64, LORIKEET_OUT_16(64), LORIKEET_OUT_16(80)
#define LORIKEET_OUT_128 LORIKEET_OUT_96, LORIKEET_OUT_16(96), LORIKEET_OUT_16(112)
#define LORIKEET_REGISTERS_4 "%0, %1, %2, %3"
#define LORIKEET_REGISTERS_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define LORIKEET_REGISTERS_16 \
  LORIKEET_REGISTERS_8        \
  ", %8, %9, %10, %11, %12, %13, %14, %15"
#define LORIKEET_REGISTERS_24 \
  LORIKEET_REGISTERS_16       \
  ", %16, %17, %18, %19, %20, %21, %22, %23"
#define LORIKEET_REGISTERS_32 \
  LORIKEET_REGISTERS_24       \
  ", %24, %25, %26, %27, %28, %29, %30, %31"
#define LORIKEET_REGISTERS_40 \
  LORIKEET_REGISTERS_32       \
  ", %32, %33, %34, %35, %36, %37, %38, %39"
#define LORIKEET_REGISTERS_48 \
  LORIKEET_REGISTERS_32       \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define LORIKEET_REGISTERS_64                                                                                        \
  LORIKEET_REGISTERS_32                                                                                              \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, " \
  "%54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define LORIKEET_REGISTERS_96                                                                                   \
  LORIKEET_REGISTERS_64                                                                                         \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, " \
  "%85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define LORIKEET_REGISTERS_128                                                                                 \
  LORIKEET_REGISTERS_96                                                                                        \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, " \
  "%114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define LORIKEET_WGMMA(columns, type, registers, outs, a0, a1, a2, a3, b_operand, add_operand) \
  asm volatile(                                                                                \
      "{\n"                                                                                    \
      ".reg .pred add;\n"                                                                      \
      "setp.ne.b32 add, " add_operand                                                          \
      ", 0;\n"                                                                                 \
      "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type "." type " {" registers      \
      "}, "                                                                                    \
      "{" a0 ", " a1 ", " a2 ", " a3 "}, " b_operand                                           \
      ", add, 1, 1, 0;\n"                                                                      \
      "}\n"                                                                                    \
      : outs                                                                                   \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)))
#define LORIKEET_WGMMA_8(type) \
  LORIKEET_WGMMA("8", type, LORIKEET_REGISTERS_4, LORIKEET_OUT_4(0), "%4", "%5", "%6", "%7", "%8", "%9")
#define LORIKEET_WGMMA_16(type) \
  LORIKEET_WGMMA("16", type, LORIKEET_REGISTERS_8, LORIKEET_OUT_8, "%8", "%9", "%10", "%11", "%12", "%13")
#define LORIKEET_WGMMA_32(type) \
  LORIKEET_WGMMA("32", type, LORIKEET_REGISTERS_16, LORIKEET_OUT_16(0), "%16", "%17", "%18", "%19", "%20", "%21")
#define LORIKEET_WGMMA_48(type) \
  LORIKEET_WGMMA("48", type, LORIKEET_REGISTERS_24, LORIKEET_OUT_24, "%24", "%25", "%26", "%27", "%28", "%29")
#define LORIKEET_WGMMA_64(type) \
  LORIKEET_WGMMA("64", type, LORIKEET_REGISTERS_32, LORIKEET_OUT_32, "%32", "%33", "%34", "%35", "%36", "%37")
#define LORIKEET_WGMMA_80(type) \
  LORIKEET_WGMMA("80", type, LORIKEET_REGISTERS_40, LORIKEET_OUT_40, "%40", "%41", "%42", "%43", "%44", "%45")
#define LORIKEET_WGMMA_96(type) \
  LORIKEET_WGMMA("96", type, LORIKEET_REGISTERS_48, LORIKEET_OUT_48, "%48", "%49", "%50", "%51", "%52", "%53")
#define LORIKEET_WGMMA_128(type) \
  LORIKEET_WGMMA("128", type, LORIKEET_REGISTERS_64, LORIKEET_OUT_64, "%64", "%65", "%66", "%67", "%68", "%69")
#define LORIKEET_WGMMA_192(type) \
  LORIKEET_WGMMA("192", type, LORIKEET_REGISTERS_96, LORIKEET_OUT_96, "%96", "%97", "%98", "%99", "%100", "%101")
#define LORIKEET_WGMMA_256(type) \
  LORIKEET_WGMMA("256", type, LORIKEET_REGISTERS_128, LORIKEET_OUT_128, "%128", "%129", "%130", "%131", "%132", "%133")

// Each of the four warps holds 16 rows of a and d as in mma_m16n8k16 (kernels/cuda/device_math.cuh), d for every 8
// columns.
template <class T>
__device__ __forceinline__ void multiply_async(float (&d)[4], const uint32_t (&a)[4], uint64_t b, bool add) {
  if constexpr (__is_same(T, __half)) {
    LORIKEET_WGMMA_8("f16");
  } else {
    LORIKEET_WGMMA_8("bf16");
  }
}
template <class T>
__device__ __forceinline__ void multiply_async(float (&d)[8], const uint32_t (&a)[4], uint64_t b, bool add) {
  if constexpr (__is_same(T, __half)) {
    LORIKEET_WGMMA_16("f16");
  } else {
    LORIKEET_WGMMA_16("bf16");
  }
}
template <class T>
__device__ __forceinline__ void multiply_async(float (&d)[16], const uint32_t (&a)[4], uint64_t b, bool add) {
  if constexpr (__is_same(T, __half)) {
    LORIKEET_WGMMA_32("f16");
  } else {
    LORIKEET_WGMMA_32("bf16");
  }
}
template <class T>
__device__ __forceinline__ void multiply_async(float (&d)[24], const uint32_t (&a)[4], uint64_t b, bool add) {
  if constexpr (__is_same(T, __half)) {
    LORIKEET_WGMMA_48("f16");
  } else {
    LORIKEET_WGMMA_48("bf16");
  }
}
template <class T>
__device__ __forceinline__ void multiply_async(float (&d)[32], const uint32_t (&a)[4], uint64_t b, bool add) {
  if constexpr (__is_same(T, __half)) {
    LORIKEET_WGMMA_64("f16");
  } else {
    LORIKEET_WGMMA_64("bf16");
  }
}
template <class T>
__device__ __forceinline__ void multiply_async(float (&d)[40], const uint32_t (&a)[4], uint64_t b, bool add) {
  if constexpr (__is_same(T, __half)) {
    LORIKEET_WGMMA_80("f16");
  } else {
    LORIKEET_WGMMA_80("bf16");
  }
}
template <class T>
__device__ __forceinline__ void multiply_async(float (&d)[48], const uint32_t (&a)[4], uint64_t b, bool add) {
  if constexpr (__is_same(T, __half)) {
    LORIKEET_WGMMA_96("f16");
  } else {
    LORIKEET_WGMMA_96("bf16");
  }
}
template <class T>
__device__ __forceinline__ void multiply_async(float (&d)[64], const uint32_t (&a)[4], uint64_t b, bool add) {
  if constexpr (__is_same(T, __half)) {
    LORIKEET_WGMMA_128("f16");
  } else {
    LORIKEET_WGMMA_128("bf16");
  }
}
template <class T>
__device__ __forceinline__ void multiply_async(float (&d)[96], const uint32_t (&a)[4], uint64_t b, bool add) {
  if constexpr (__is_same(T, __half)) {
    LORIKEET_WGMMA_192("f16");
  } else {
    LORIKEET_WGMMA_192("bf16");
  }
}
template <class T>
__device__ __forceinline__ void multiply_async(float (&d)[128], const uint32_t (&a)[4], uint64_t b, bool add) {
  if constexpr (__is_same(T, __half)) {
    LORIKEET_WGMMA_256("f16");
  } else {
    LORIKEET_WGMMA_256("bf16");
  }
}

#undef LORIKEET_WGMMA_256
#undef LORIKEET_WGMMA_192
#undef LORIKEET_WGMMA_128
#undef LORIKEET_WGMMA_96
#undef LORIKEET_WGMMA_80
#undef LORIKEET_WGMMA_64
#undef LORIKEET_WGMMA_48
#undef LORIKEET_WGMMA_32
#undef LORIKEET_WGMMA_16
#undef LORIKEET_WGMMA_8
#undef LORIKEET_WGMMA
#undef LORIKEET_REGISTERS_128
#undef LORIKEET_REGISTERS_96
#undef LORIKEET_REGISTERS_64
#undef LORIKEET_REGISTERS_48
#undef LORIKEET_REGISTERS_40
#undef LORIKEET_REGISTERS_32
#undef LORIKEET_REGISTERS_24
#undef LORIKEET_REGISTERS_16
#undef LORIKEET_REGISTERS_8
#undef LORIKEET_REGISTERS_4
#undef LORIKEET_OUT_128
#undef LORIKEET_OUT_96
#undef LORIKEET_OUT_64
#undef LORIKEET_OUT_48
#undef LORIKEET_OUT_40
#undef LORIKEET_OUT_32
#undef LORIKEET_OUT_24
#undef LORIKEET_OUT_8
#undef LORIKEET_OUT_16
#undef LORIKEET_OUT_4

}  // namespace lorikeet::kernels::device
