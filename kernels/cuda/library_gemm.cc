#include "kernels/cuda/library_gemm.h"

#include <cublasLt.h>

#include <map>
#include <tuple>
#include <utility>

#include "kernels/base/cuda_check.h"

namespace lorikeet::kernels {
namespace {

constexpr uint64_t kWorkspaceBytes = 64ULL << 20;
constexpr int32_t kRowClass = 128;  // m is rounded up to a multiple of this before an algorithm is chosen

#define LORIKEET_CHECK_CUBLAS(call)                                                                             \
  do {                                                                                                          \
    const cublasStatus_t lorikeet_status = (call);                                                              \
    CHECK(lorikeet_status == CUBLAS_STATUS_SUCCESS) << #call << ": " << cublasLtGetStatusName(lorikeet_status); \
  } while (false)

cudaDataType_t data_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::f16:
      return CUDA_R_16F;
    case Dtype::bf16:
      return CUDA_R_16BF;
    case Dtype::f32:
      return CUDA_R_32F;
    default:
      LOG(FATAL) << "no matrix product of " << name_of(dtype);
  }
}

struct Layout {
  cublasLtMatrixLayout_t handle = nullptr;
  // The library counts by columns: rows of ours are columns of its.
  Layout(Dtype dtype, int32_t row_length, int32_t rows, int64_t stride) {
    LORIKEET_CHECK_CUBLAS(cublasLtMatrixLayoutCreate(&handle, data_type(dtype), static_cast<uint64_t>(row_length),
                                                     static_cast<uint64_t>(rows), stride));
  }
  ~Layout() { cublasLtMatrixLayoutDestroy(handle); }
  Layout(const Layout&) = delete;
  Layout& operator=(const Layout&) = delete;
};

}  // namespace

struct LibraryGemm::Impl {
  using Shape = std::tuple<Dtype, Dtype, int32_t, int32_t, int32_t>;  // dtypes, class of m, n, k

  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  DeviceBuffer workspace;
  std::map<Shape, cublasLtMatmulAlgo_t> algorithms;

  ~Impl() {
    if (preference != nullptr) cublasLtMatmulPreferenceDestroy(preference);
    if (product != nullptr) cublasLtMatmulDescDestroy(product);
    if (handle != nullptr) cublasLtDestroy(handle);
  }

  const cublasLtMatmulAlgo_t& algorithm(const LibraryGemmArgs& args, int32_t m) {
    const Shape shape{args.dtype, args.out_dtype, m, args.n, args.k};
    const auto found = algorithms.find(shape);
    if (found != algorithms.end()) return found->second;
    const Layout weight(args.dtype, args.k, args.n, args.k);
    const Layout x(args.dtype, args.k, m, args.x_stride);
    const Layout out(args.out_dtype, args.n, m, args.out_stride);
    cublasLtMatmulHeuristicResult_t result{};
    int results = 0;
    LORIKEET_CHECK_CUBLAS(cublasLtMatmulAlgoGetHeuristic(handle, product, weight.handle, x.handle, out.handle,
                                                         out.handle, preference, 1, &result, &results));
    CHECK_EQ(results, 1) << "cuBLASLt has no algorithm for m " << m << ", n " << args.n << ", k " << args.k;
    return algorithms.emplace(shape, result.algo).first->second;
  }

  cublasStatus_t multiply(const LibraryGemmArgs& args, const cublasLtMatmulAlgo_t& algo, const Stream& stream) {
    const Layout weight(args.dtype, args.k, args.n, args.k);
    const Layout x(args.dtype, args.k, args.m, args.x_stride);
    const Layout out(args.out_dtype, args.n, args.m, args.out_stride);
    const float one = 1;
    const float zero = 0;
    return cublasLtMatmul(handle, product, &one, args.weight, weight.handle, args.x, x.handle, &zero, args.out,
                          out.handle, args.out, out.handle, &algo, workspace.data(), kWorkspaceBytes, stream.handle());
  }
};

LibraryGemm::LibraryGemm(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LibraryGemm::LibraryGemm(LibraryGemm&&) noexcept = default;
LibraryGemm& LibraryGemm::operator=(LibraryGemm&&) noexcept = default;
LibraryGemm::~LibraryGemm() = default;

Result<LibraryGemm> LibraryGemm::make() {
  auto impl = std::make_unique<Impl>();
  const cublasStatus_t status = cublasLtCreate(&impl->handle);
  if (status != CUBLAS_STATUS_SUCCESS) return fail("cuBLASLt cannot be used: {}", cublasLtGetStatusName(status));
  Result<DeviceBuffer> workspace = DeviceBuffer::allocate(kWorkspaceBytes, "the workspace of cuBLASLt");
  if (!workspace) return tl::unexpected(workspace.error());
  impl->workspace = std::move(*workspace);
  LORIKEET_CHECK_CUBLAS(cublasLtMatmulDescCreate(&impl->product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasOperation_t transpose = CUBLAS_OP_T;
  LORIKEET_CHECK_CUBLAS(
      cublasLtMatmulDescSetAttribute(impl->product, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof transpose));
  LORIKEET_CHECK_CUBLAS(cublasLtMatmulPreferenceCreate(&impl->preference));
  LORIKEET_CHECK_CUBLAS(cublasLtMatmulPreferenceSetAttribute(impl->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                             &kWorkspaceBytes, sizeof kWorkspaceBytes));
  const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  LORIKEET_CHECK_CUBLAS(cublasLtMatmulPreferenceSetAttribute(
      impl->preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions));
  return LibraryGemm(std::move(impl));
}

void LibraryGemm::run(const LibraryGemmArgs& args, const Stream& stream) {
  if (args.m == 0) return;
  const int32_t m_class = (args.m + kRowClass - 1) / kRowClass * kRowClass;
  cublasStatus_t status = impl_->multiply(args, impl_->algorithm(args, m_class), stream);
  if (status == CUBLAS_STATUS_INVALID_VALUE || status == CUBLAS_STATUS_NOT_SUPPORTED) {
    // The algorithm of the class needs more alignment than this m has.
    status = impl_->multiply(args, impl_->algorithm(args, args.m), stream);
  }
  LORIKEET_CHECK_CUBLAS(status);
}

}  // namespace lorikeet::kernels
