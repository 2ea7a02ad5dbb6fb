#include "kernels/int4/stream/kernels.cuh"
#include "tests/kernels/int4/launch_registers.cuh"

namespace lorikeet::kernels {
namespace {

using StreamRegistersCuda = LaunchRegistersCuda;

TEST_F(StreamRegistersCuda, AreWhatWarpsDivide) {
  const Division division = {int4::kStreamWarps * device::kWarpSize, int4::kStreamRegisters,
                             int4::kFillingWarps * device::kWarpSize, int4::kFillingRegisters};
  of_every_weight([&]<class T>(int32_t scale_block, bool asymmetric, const std::string& what) {
    for (const int32_t columns : {8, 16, 32, 64}) {
      expect_enough(reinterpret_cast<const void*>(int4::stream_kernel<T>(columns, scale_block, asymmetric)), division,
                    fmt::format("{}, {} columns", what, columns));
    }
  });
}

template <int kColumns>
constexpr Division of_groups() {
  using Registers = int4::GroupRegisters<kColumns>;
  return {int4::kGroupStreamWarps * device::kWarpSize, Registers::kComputing, int4::kGroupWarps * device::kWarpSize,
          Registers::kFilling};
}

TEST_F(StreamRegistersCuda, AreWhatWarpgroupsDivide) {
  const std::pair<int32_t, Division> divisions[] = {
      {8, of_groups<8>()}, {16, of_groups<16>()}, {32, of_groups<32>()}, {48, of_groups<48>()}, {64, of_groups<64>()}};
  of_every_weight([&]<class T>(int32_t scale_block, bool asymmetric, const std::string& what) {
    for (const auto& [columns, division] : divisions) {
      expect_enough(reinterpret_cast<const void*>(int4::group_stream_kernel<T>(columns, scale_block, asymmetric)),
                    division, fmt::format("{}, {} columns", what, columns));
    }
  });
}

}  // namespace
}  // namespace lorikeet::kernels
