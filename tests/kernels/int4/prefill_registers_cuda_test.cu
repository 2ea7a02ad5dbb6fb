#include "kernels/int4/prefill/prefill.cuh"
#include "kernels/int4/prefill/prefill_pairs.cuh"
#include "tests/kernels/int4/launch_registers.cuh"

namespace lorikeet::kernels {
namespace {

using PrefillRegistersCuda = LaunchRegistersCuda;

TEST_F(PrefillRegistersCuda, AreWhatTheKernelDivides) {
  const Division division = {int4::kConsumers, int4::kPrefillComputingRegisters,
                             int4::kPrefillThreads - int4::kConsumers, int4::kPrefillFillingRegisters};
  of_every_weight([&]<class T>(int32_t scale_block, bool asymmetric, const std::string& what) {
    for (const int32_t columns : {64, 80, 96, 128}) {
      const int4::PrefillVariant of_blocks = int4::prefill_variant<T>(columns, scale_block, asymmetric);
      const int4::PrefillVariant of_pairs = int4::prefill_pairs_variant<T>(columns, scale_block, asymmetric);
      expect_enough(reinterpret_cast<const void*>(of_blocks.kernel), division,
                    fmt::format("{}, {} columns", what, columns));
      expect_enough(reinterpret_cast<const void*>(of_pairs.kernel), division,
                    fmt::format("{}, {} columns, pairs", what, columns));
    }
  });
}

}  // namespace
}  // namespace lorikeet::kernels
