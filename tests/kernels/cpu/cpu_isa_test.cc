#include "kernels/cpu/cpu_isa.h"

#include <gtest/gtest.h>

#include <string_view>

#include "kernels/int4/int4_product_simd.h"
#include "kernels/int4/int8_inputs.h"
#include "tests/kernels/base/instruction_sets.h"

namespace lorikeet::kernels {
namespace {

TEST(CpuIsa, HasALoopForEverySetUpToTheBestAndForNoOther) {
  const CpuIsa best = best_cpu_isa();
  EXPECT_TRUE(has_cpu_isa(CpuIsa::plain));
  EXPECT_TRUE(has_cpu_isa(best));
  const size_t with_vectors = best == CpuIsa::neon ? 1 : static_cast<size_t>(best);
  EXPECT_EQ(tests::instruction_sets().size(), with_vectors) << name_of(best);
  for (const CpuIsa isa : tests::instruction_sets()) EXPECT_NE(int4_product_loop(isa), nullptr) << name_of(isa);
  EXPECT_EQ(int4_product_loop(CpuIsa::plain), nullptr);
}

TEST(CpuIsa, IsOneOfThisArchitecture) {
#if defined(__aarch64__)
  EXPECT_EQ(best_cpu_isa(), std::string_view(LORIKEET_CPU_ISA) == "plain" ? CpuIsa::plain : CpuIsa::neon);
  EXPECT_FALSE(has_cpu_isa(CpuIsa::avx2));
  EXPECT_EQ(int4_product_loop(CpuIsa::avx2), nullptr);
  EXPECT_FALSE(has_integer_dot(IntegerDot::avx2));
#else
  EXPECT_FALSE(has_cpu_isa(CpuIsa::neon));
  EXPECT_EQ(int4_product_loop(CpuIsa::neon), nullptr);
  EXPECT_FALSE(has_integer_dot(IntegerDot::neon));
  EXPECT_FALSE(has_integer_dot(IntegerDot::neon_dotprod));
#endif
}

TEST(IntegerDot, HasALoopWhereTheMachineHasIt) {
  EXPECT_TRUE(has_integer_dot(IntegerDot::plain));
  EXPECT_TRUE(has_integer_dot(best_integer_dot()));
  EXPECT_EQ(best_integer_dot() == IntegerDot::plain, best_cpu_isa() == CpuIsa::plain);
  for (const IntegerDot dot :
       {IntegerDot::avx2, IntegerDot::avx_vnni, IntegerDot::avx512_vnni, IntegerDot::neon, IntegerDot::neon_dotprod}) {
    if (has_integer_dot(dot)) EXPECT_NE(int8_product_loop(dot), nullptr) << name_of(dot);
  }
  EXPECT_EQ(int8_product_loop(IntegerDot::plain), nullptr);
}

}  // namespace
}  // namespace lorikeet::kernels
