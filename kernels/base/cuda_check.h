// CUDA calls that cannot fail unless something before them was wrong. For files that may include CUDA's headers.
#pragma once

#include <cuda_runtime_api.h>
#include <glog/logging.h>

// Aborts with the call, CUDA's name of the error and its explanation.
#define LORIKEET_CHECK_CUDA(call)                                                                             \
  do {                                                                                                        \
    const cudaError_t lorikeet_status = (call);                                                               \
    CHECK(lorikeet_status == cudaSuccess)                                                                     \
        << #call << ": " << cudaGetErrorName(lorikeet_status) << ": " << cudaGetErrorString(lorikeet_status); \
  } while (false)
