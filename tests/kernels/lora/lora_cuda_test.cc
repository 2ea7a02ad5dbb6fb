// y + scale * B (A x) for any mix of adapters, ranks and rows, in graphs and in chains.
#include "tests/kernels/lora/lora_fixture.h"

namespace lorikeet::kernels {
namespace {

TEST_F(LoraCuda, AgreesWithFloat64ForAnyMixOfAdaptersAndRanks) {
  for (const Dtype dtype : kDtypes) {
    make_slots(small_geometry(dtype), 12);
    const std::vector<RandomLora> adapters = load_mix();
    for (const size_t rows : sizes<size_t>({1, 2, 7, 16, 33, 64, 65, 150}, {1, 16, 65})) {
      const std::vector<int32_t> slots = random_slots(rows);
      for (const Group& group : kGroups) {
        const int32_t layer = static_cast<int32_t>(rows % 2);
        const Operands o = operands(linear(group, layer), slots);
        const std::vector<double> expected = reference(adapters, group, layer, o, slots);
        EXPECT_TRUE(near_reference(to_values(run(o, rows), dtype), expected, tolerance_of(dtype)))
            << dtype_name(dtype) << " " << group.name << " rows " << rows;
      }
    }
  }
}

TEST_F(LoraCuda, AgreesWithFloat64WhenAllRowsTakeOneAdapter) {
  for (const Dtype dtype : kDtypes) {
    make_slots(small_geometry(dtype), 1);
    for (const int32_t rank : sizes({1, 20, 64, 200}, {20, 200})) {
      std::vector<RandomLora> adapters;
      adapters.push_back(uniform(rank));
      load(0, adapters[0]);
      for (const size_t rows : sizes<size_t>({1, 5, 17, 64, 65, 97, 300}, {5, 64, 97})) {
        const std::vector<int32_t> slots(rows, 0);
        const Operands o = operands(linear(kQkv, 1), slots);
        EXPECT_TRUE(
            near_reference(to_values(run(o, rows), dtype), reference(adapters, kQkv, 1, o, slots), tolerance_of(dtype)))
            << dtype_name(dtype) << " rank " << rank << " rows " << rows;
      }
    }
  }
}

TEST_F(LoraCuda, AgreesWithFloat64AtTheShapesOf14B) {
  for (const Dtype dtype : kDtypes) {
    LoraGeometry geometry = geometry_of_14b(dtype, 512);
    if (takes_few_sizes()) geometry.outputs = {264, 128, 128, 264, 264, 264, 264};
    make_slots(geometry, 3, 256 << 20);
    std::vector<RandomLora> adapters;
    for (const int32_t rank : {16, 64, 147}) adapters.push_back(uniform(rank));
    for (int32_t i = 0; i < 3; i++) load(i, adapters[static_cast<size_t>(i)]);
    for (const size_t rows : sizes<size_t>({1, 9, 70}, {9, 70})) {
      const std::vector<int32_t> slots = random_slots(rows);
      for (const Group& group : kGroups) {
        const Operands o = operands(linear(group, 0), slots);
        const int32_t step = 101;
        EXPECT_TRUE(near_reference(picked(run(o, rows), linear(group, 0), rows, step),
                                   reference(adapters, group, 0, o, slots, step), tolerance_of(dtype)))
            << dtype_name(dtype) << " " << group.name << " rows " << rows;
      }
    }
  }
}

TEST_F(LoraCuda, TakesOutputsThatAreNotAlignedToAnything) {
  for (const Dtype dtype : kDtypes) {
    LoraGeometry geometry = small_geometry(dtype);
    geometry.outputs = {45, 3, 34, 1, 44, 44, 77};
    make_slots(geometry, 12);
    const std::vector<RandomLora> adapters = load_mix();
    for (const size_t rows : sizes<size_t>({5, 80}, {5, 66})) {
      const std::vector<int32_t> slots = random_slots(rows);
      for (const Group& group : kGroups) {
        const Operands o = operands(linear(group, 0), slots, 3);
        const std::vector<double> expected = reference(adapters, group, 0, o, slots);
        EXPECT_TRUE(near_reference(to_values(run(o, rows), dtype), expected, tolerance_of(dtype)))
            << dtype_name(dtype) << " " << group.name << " rows " << rows;
        const std::vector<uint16_t> y = to_host<uint16_t>(o.y_device);
        for (size_t row = 0; row < rows; row++) {
          const size_t gap = (row + 1) * static_cast<size_t>(o.y_stride) - 3;
          EXPECT_TRUE(std::isnan(to_value(y[gap], dtype))) << "written behind row " << row;
        }
      }
    }
  }
}

// So many rows that blocks of the launch have several pieces of work, but with few sizes.
TEST_F(LoraCuda, GivesARowTheSameBitsAloneAndInAnyBatch) {
  for (const Dtype dtype : kDtypes) {
    make_slots(small_geometry(dtype), 12);
    load_mix();
    const size_t most = usual_or_few(3000, 150);
    const std::vector<int32_t> slots = random_slots(most);
    for (const Group& group : kGroups) {
      const LoraLinear of = linear(group, 0);
      const Operands all = operands(of, slots);
      const std::vector<uint16_t> together = run(all, most);
      for (const size_t rows : sizes<size_t>({1, 2, 15, 40, 64, 65, 130, 700}, {1, 15, 65})) {
        const std::vector<size_t> chosen = choose(rows, most);
        EXPECT_EQ(run(subset(all, slots, chosen), rows), rows_of(together, chosen, width(of)))
            << dtype_name(dtype) << " " << group.name << " rows " << rows;
      }
    }
  }
}

TEST_F(LoraCuda, ReplaysOneGraphWhileAdaptersComeAndGo) {
  make_slots(small_geometry(Dtype::bf16), 3, 16 << 20);
  const size_t rows = 9;
  const LoraLinear of = linear(kQkv, 1);
  Operands o = operands(of, std::vector<int32_t>(rows, -1));
  const LoraRowPlan plan = row_plan(static_cast<int32_t>(rows));
  LoraProducts products = make_products(static_cast<int32_t>(rows));
  const Result<Graph> graph = Graph::capture(stream_, [&] {
    products.shrink(o.args, stream_);
    products.expand(o.args, stream_);
  });
  ASSERT_TRUE(graph) << graph.error().message;
  std::vector<RandomLora> adapters;
  for (int32_t i = 0; i < 3; i++) adapters.emplace_back(geometry_, random_);
  std::vector<unsigned char> host(plan.bytes());
  for (const int32_t rank : sizes({0, 16, 5, 0, 200, 64, 1}, {0, 16, 5, 200})) {
    const auto slot = static_cast<size_t>(random_() % 3);
    adapters[slot] = rank > 0 ? uniform(rank, rank == 5) : RandomLora(geometry_, random_);
    if (rank > 0) {
      load(static_cast<int32_t>(slot), adapters[slot]);
    } else {
      slots_->clear(static_cast<int32_t>(slot));
    }
    const std::vector<int32_t> slots = random_slots(rows);
    const uint64_t used = plan.write(slots, slots_->ranks(), host.data());
    copy_to_device(o.description.data(), host.data(), used, stream_);
    const std::vector<uint16_t> y = padded(o.y.stored, rows, o.y_stride);
    copy_to_device(o.y_device.data(), y.data(), o.y_device.bytes(), stream_);
    graph->launch(stream_);
    EXPECT_TRUE(
        near_reference(to_values(unpadded(to_host<uint16_t>(o.y_device), rows, o.y_stride, width(of)), Dtype::bf16),
                       reference(adapters, kQkv, 1, o, slots), tests::kBfloat16Tolerance))
        << "rank " << rank;
  }
}

TEST_F(LoraCuda, FollowsTheKernelBeforeItEvenWhenTheyOverlap) {
  // A chain in which every product reads what the one before it wrote: o maps 200 to 200.
  LoraGeometry geometry = small_geometry(Dtype::f16);
  geometry.inputs[kO] = 200;
  make_slots(geometry, 2);
  for (int32_t i = 0; i < 2; i++) load(i, uniform(16 + 24 * i));
  const std::vector<int32_t> slots = {0, 1, 1, -1, 0};
  Operands o = operands(linear(kOutput, 0), slots, 8);
  const std::vector<uint16_t> first = padded(o.x.stored, 5, o.x_stride);
  LoraProducts products = make_products(5);
  const auto chain = [&](bool wait) {
    copy_to_device(o.x_device.data(), first.data(), o.x_device.bytes(), stream_);
    fill_bytes(o.y_device.data(), 0, o.y_device.bytes(), stream_);
    LoraArgs args = o.args;
    for (int i = 0; i < usual_or_few(24, 4); i++) {
      args.x = i % 2 == 0 ? o.x_device.data() : o.y_device.data();
      args.y = i % 2 == 0 ? o.y_device.data() : o.x_device.data();
      products.shrink(args, stream_);
      if (wait) stream_.synchronize();
      products.expand(args, stream_);
      if (wait) stream_.synchronize();
    }
    return to_host<uint16_t>(o.x_device);
  };
  const std::vector<uint16_t> one_by_one = chain(true);
  for (int repeat = 0; repeat < usual_or_few(20, 2); repeat++) ASSERT_EQ(one_by_one, chain(false));
}

}  // namespace
}  // namespace lorikeet::kernels
