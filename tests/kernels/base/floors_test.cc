#include "kernels/base/floors.h"

#include <gtest/gtest.h>

namespace lorikeet::kernels {
namespace {

TEST(CpuFloors, MeasureMemoryWithAnyNumberOfThreads) {
  for (const int threads : {1, 3}) {
    const Floors floors = measure_cpu_floors(threads);
    EXPECT_GT(floors.read, 1e6) << "a megabyte a second, whatever the machine";
    EXPECT_GT(floors.copy, 1e6);
    EXPECT_EQ(floors.f16_flops, 0) << "not measured";
  }
}

}  // namespace
}  // namespace lorikeet::kernels
