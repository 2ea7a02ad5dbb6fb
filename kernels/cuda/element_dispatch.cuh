// Chooses the instantiation of a kernel for an element type known at run time. Included by .cu files only.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <glog/logging.h>

#include "kernels/base/dtype.h"
#include "kernels/base/kv_cache.h"

namespace lorikeet::kernels {

template <class T>
struct Element {
  using type = T;
};

// f(Element<T>{}) for the type T of activations: fp16 or bf16.
template <class F>
void with_activation_type(Dtype dtype, F&& f) {
  if (dtype == Dtype::f16) return f(Element<__half>{});
  CHECK(dtype == Dtype::bf16) << "activations are F16 or BF16, not " << name_of(dtype);
  f(Element<__nv_bfloat16>{});
}

// f(Element<T>{}) for the stored type of keys and values.
template <class F>
void with_kv_type(KvDtype dtype, F&& f) {
  switch (dtype) {
    case KvDtype::f16:
      return f(Element<__half>{});
    case KvDtype::bf16:
      return f(Element<__nv_bfloat16>{});
    case KvDtype::f8_e4m3:
      return f(Element<__nv_fp8_e4m3>{});
  }
  LOG(FATAL) << "no such KV type: " << static_cast<int>(dtype);
}

}  // namespace lorikeet::kernels
