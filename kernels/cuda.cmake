# The CUDA versions of the kernels. Host code that includes no CUDA header may include kernels/base/device.h and the
# kernels' *_cuda.h.
add_library(lorikeet_kernels_cuda STATIC
  attention/attention_decode_cuda.cu
  attention/attention_prefill_cuda.cu
  attention/decode_division.cc
  base/device.cc
  base/host_devices.cc
  base/polled_event.cc
  base/span_allocator.cc
  cuda/floors_cuda.cu
  cuda/library_gemm.cc
  cuda/pinned_copy_cuda.cu
  dense/dense_decode_cuda.cu
  dense/dense_gemm_cuda.cu
  dense/dense_weight_cuda.cu
  int4/decode/bf16.cu
  int4/decode/f16.cu
  int4/decode/int4_decode.cu
  int4/decode/int4_lora.cu
  int4/decode/lora_bf16.cu
  int4/decode/lora_f16.cu
  int4/decode/lora_parts.cu
  int4/decode/shape.cu
  int4/dora_norms_cuda.cu
  int4/int4_gemm_cuda.cu
  int4/base/pack_cuda.cu
  int4/prefill/int4_prefill.cu
  int4/prefill/prefill_bf16.cu
  int4/prefill/prefill_f16.cu
  int4/prefill/prefill_pairs_bf16.cu
  int4/prefill/prefill_pairs_f16.cu
  int4/prefill/prefill_shape.cc
  int4/prefill/int4_warp_prefill.cu
  int4/prefill/unpacked_gemm.cu
  int4/prefill/warp_bf16.cu
  int4/prefill/warp_f16.cu
  int4/prefill/warp_prefill_shape.cc
  int4/stream/bf16.cu
  int4/stream/f16.cu
  int4/stream/int4_stream.cu
  layer/embedding_cuda.cu
  layer/rms_norm_cuda.cu
  layer/rope_cuda.cu
  layer/silu_mul_cuda.cu
  peer/memory_digest_cuda.cu
  peer/peer_memory.cc
  peer/peer_sum_cuda.cu
  peer/peer_two_shot_cuda.cu
  lora/lora_cuda.cu
  lora/lora_rows.cc
  lora/lora_slots.cc
  lora/lora_upload.cc
  sampling/filtered_sampling_cuda.cu
  sampling/logprobs_cuda.cu
  sampling/sampling_cuda.cu
  sampling/token_constraint_cuda.cu
  sampling/vocab_cut.cu)
target_link_libraries(lorikeet_kernels_cuda PUBLIC lorikeet_settings lorikeet_kernels fmt::fmt PkgConfig::GLOG
                                            PRIVATE CUDA::cudart CUDA::cublasLt)
target_compile_options(lorikeet_kernels_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr -Xcompiler=-Wall,-Wextra>)
