# The CUDA versions of the kernels. Host code that includes no CUDA header may include kernels/device.h and the
# kernels' *_cuda.h.
add_library(lorikeet_kernels_cuda STATIC
  device.cc
  attention_decode_cuda.cu
  attention_prefill_cuda.cu
  decode_division.cc
  dense_decode_cuda.cu
  dense_gemm_cuda.cu
  dense_weight_cuda.cu
  dora_norms_cuda.cu
  embedding_cuda.cu
  filtered_sampling_cuda.cu
  floors_cuda.cu
  int4_decode.cu
  int4_decode_shape.cu
  int4_decode_bf16.cu
  int4_decode_f16.cu
  int4_decode_lora_bf16.cu
  int4_decode_lora_f16.cu
  int4_gemm_cuda.cu
  int4_lora.cu
  int4_pack_cuda.cu
  int4_prefill.cu
  int4_stream.cu
  int4_stream_bf16.cu
  int4_stream_f16.cu
  library_gemm.cc
  logprobs_cuda.cu
  lora_cuda.cu
  lora_pack.cc
  lora_rows.cc
  lora_slots.cc
  rms_norm_cuda.cu
  rope_cuda.cu
  sampling_cuda.cu
  silu_mul_cuda.cu
  span_allocator.cc)
target_link_libraries(lorikeet_kernels_cuda PUBLIC lorikeet_settings fmt::fmt PkgConfig::GLOG
                                            PRIVATE CUDA::cudart CUDA::cublasLt)
target_compile_options(lorikeet_kernels_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr -Xcompiler=-Wall,-Wextra>)
