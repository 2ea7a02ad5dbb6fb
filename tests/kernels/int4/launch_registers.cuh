// The registers with which kernels start that move them between warpgroups: as many as they divide, or groups wait for good.
// The same of the machine code, without a device: tests/kernels/launch_registers.py.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "kernels/base/cuda_check.h"
#include "kernels/int4/base/fragment.cuh"
#include "tests/kernels/base/cuda_test.h"

namespace lorikeet::kernels {

// How many threads of a block compute and how many fill, and what each has of them when they are divided.
struct Division {
  int computing_threads, computing_registers;
  int filling_threads, filling_registers;

  int threads() const { return computing_threads + filling_threads; }
  int registers() const { return computing_threads * computing_registers + filling_threads * filling_registers; }
};

class LaunchRegistersCuda : public CudaTest {
 protected:
  static void expect_enough(const void* kernel, const Division& division, const std::string& what) {
    cudaFuncAttributes attributes{};
    LORIKEET_CHECK_CUDA(cudaFuncGetAttributes(&attributes, kernel));
    if (attributes.binaryVersion < 90 || attributes.ptxVersion < 90) {
      GTEST_SKIP() << "of code for other devices, which moves no registers";
    }
    EXPECT_GE(attributes.numRegs * division.threads(), division.registers())
        << what << " starts with " << attributes.numRegs << " registers a thread";
    EXPECT_GE(attributes.maxThreadsPerBlock, division.threads()) << what;
  }

  // check(scale block, asymmetric, type's name), of every format and type.
  template <class Check>
  static void of_every_weight(const Check& check) {
    for (const int scale_block : {int4::kUnitInputs, int4::kSubBlock}) {
      for (const bool asymmetric : {false, true}) {
        check.template operator()<__half>(scale_block, asymmetric,
                                          fmt::format("f16, scales of {}, asymmetric {}", scale_block, asymmetric));
        check.template operator()<__nv_bfloat16>(
            scale_block, asymmetric, fmt::format("bf16, scales of {}, asymmetric {}", scale_block, asymmetric));
      }
    }
  }
};

}  // namespace lorikeet::kernels
