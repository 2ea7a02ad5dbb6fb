// LoRA's two kernels at Qwen2.5-14B's shapes, each alone and in turns as steps run them, on every mix of adapters that
// matters; gate and up with the activation behind them. Floor: the bytes of the distinct adapters' weights of a
// projection at the read bandwidth measured in the same run. Layers are rotated over more than the L2; figures are
// medians of graph replays, launch boundaries included.
#include <string>
#include <vector>

#include "bench/kernels/gpu_floors.cuh"
#include "kernels/lora/lora_cuda.h"
#include "kernels/lora/lora_layout.h"
#include "kernels/lora/lora_rows.h"

namespace lorikeet::kernels {
namespace {

using bench::allocate;
using bench::must;
using bench::random_halves;

constexpr uint64_t kRotatedBytes = 256ULL << 20;
constexpr int32_t kMaxRank = 64;
constexpr int32_t kMaxInputs = 13824;
constexpr int kModelLayers = 48;

struct Shape {
  const char* name;
  LoraLinear linear;
};

const std::vector<Shape>& shapes() {
  static const std::vector<Shape> all = {{"qkv 5120 x 7168", {0, 3, 5120, {5120, 1024, 1024}}},
                                         {"o 5120 x 5120", {0, 1, 5120, {5120, 0, 0}}},
                                         {"gate_up 5120 x 27648", {0, 2, 5120, {13824, 13824, 0}}},
                                         {"down 13824 x 5120", {0, 1, 13824, {5120, 0, 0}}}};
  return all;
}

class Bench {
 public:
  void run() {
    const DeviceProperties properties = device_properties();
    read_ = bench::measure_memory(stream_).read;
    fmt::print("{}: {} SMs, read {:.3f} TB/s\n", properties.name, properties.multiprocessors, read_ / 1e12);
    fmt::print("{:22} {:>5} {:>9} {:>5} {:>9} {:>9} {:>9} {:>9} {:>7}\n", "projections", "rows", "adapters", "rank",
               "shrink us", "expand us", "both us", "floor us", "share");
    struct Mix {
      int32_t rows, adapters, rank;
    };
    for (const Mix& mix : {Mix{1, 1, 16}, Mix{1, 1, 64}, Mix{8, 1, 16}, Mix{8, 8, 16}, Mix{32, 1, 16}, Mix{32, 8, 16},
                           Mix{32, 32, 16}, Mix{32, 32, 64}, Mix{64, 32, 16}, Mix{2048, 1, 16}, Mix{2048, 8, 16}}) {
      Figure all;
      for (const Shape& shape : shapes()) {
        const Figure figure = measure(shape.linear, mix.rows, mix.adapters, mix.rank);
        report(shape.name, mix.rows, mix.adapters, mix.rank, figure);
        all.shrink_us += kModelLayers * figure.shrink_us;
        all.expand_us += kModelLayers * figure.expand_us;
        all.us += kModelLayers * figure.us;
        all.floor_us += kModelLayers * figure.floor_us;
      }
      report("48 layers", mix.rows, mix.adapters, mix.rank, all);
    }
  }

 private:
  struct Figure {
    double shrink_us = 0, expand_us = 0, us = 0, floor_us = 0;
  };

  static void report(const std::string& name, int32_t rows, int32_t adapters, int32_t rank, const Figure& figure) {
    fmt::print("{:22} {:5} {:9} {:5} {:9.2f} {:9.2f} {:9.2f} {:9.2f} {:6.1f}%\n", name, rows, adapters, rank,
               figure.shrink_us, figure.expand_us, figure.us, figure.floor_us, 100 * figure.floor_us / figure.us);
    std::fflush(stdout);
  }

  Figure measure(const LoraLinear& linear, int32_t rows, int32_t adapters, int32_t rank) {
    uint64_t pair_bytes = 0;  // of one adapter's pairs of one layer
    int32_t width = 0;
    for (int32_t p = 0; p < linear.projections; p++) {
      const int32_t outputs = linear.outputs[static_cast<size_t>(p)];
      pair_bytes += lora::a_bytes(rank, linear.inputs) + lora::b_bytes(rank, outputs);
      width += outputs;
    }
    const uint64_t layer_bytes = pair_bytes * static_cast<uint64_t>(adapters);
    const int layers = static_cast<int>(kRotatedBytes / layer_bytes) + 1;
    const DeviceBuffer weights =
        random_halves(static_cast<int64_t>(layer_bytes / 2) * layers, 1, stream_);  // any bits serve

    const int32_t stride = layers * linear.projections;
    std::vector<DeviceLora> entries;
    const auto* next = weights.as<unsigned char>();
    for (int32_t slot = 0; slot < adapters; slot++) {
      for (int layer = 0; layer < layers; layer++) {
        for (int32_t p = 0; p < linear.projections; p++) {
          DeviceLora entry;
          entry.a = next;
          next += lora::a_bytes(rank, linear.inputs);
          entry.b = next;
          next += lora::b_bytes(rank, linear.outputs[static_cast<size_t>(p)]);
          entry.rank = rank;
          entry.scale = 1e-3F;
          entries.push_back(entry);
        }
      }
    }
    const DeviceBuffer table = upload(entries.data(), entries.size() * sizeof(DeviceLora));

    std::vector<int32_t> slots, ranks(static_cast<size_t>(adapters), rank);
    for (int32_t r = 0; r < rows; r++) slots.push_back(r % adapters);
    const LoraRowPlan plan(rows, adapters, kMaxRank);
    std::vector<unsigned char> description(plan.bytes());
    plan.write(slots, ranks, description.data());
    const DeviceBuffer device_rows = upload(description.data(), description.size());

    const DeviceBuffer x = random_halves(static_cast<int64_t>(rows) * linear.inputs, 2, stream_);
    const DeviceBuffer y = random_halves(static_cast<int64_t>(rows) * width, 3, stream_);
    LoraProducts products = must(LoraProducts::make(rows, kMaxInputs, kMaxRank));
    LoraArgs args;
    args.table = {table.as<DeviceLora>(), stride};
    args.rows = plan.on_device(device_rows.data(), rows);
    args.linear = linear;
    args.x = x.data();
    args.x_stride = linear.inputs;
    args.y = y.data();
    args.y_stride = width;
    const DeviceBuffer activated = allocate(static_cast<uint64_t>(rows) * static_cast<uint64_t>(width));
    if (linear.projections == 2) {  // gate and up
      args.silu_out = activated.data();
      args.silu_stride = width / 2;
    }
    const auto per_layer = [&](bool shrink, bool expand) {
      return bench::microseconds(stream_,
                                 [&] {
                                   for (int layer = 0; layer < layers; layer++) {
                                     args.linear.first_entry = layer * linear.projections;
                                     if (shrink) products.shrink(args, stream_);
                                     if (expand) products.expand(args, stream_);
                                   }
                                 }) /
             layers;
    };
    Figure figure;
    figure.us = per_layer(true, true);
    figure.shrink_us = per_layer(true, false);
    figure.expand_us = per_layer(false, true);
    figure.floor_us = 1e6 * static_cast<double>(layer_bytes) / read_;
    return figure;
  }

  DeviceBuffer upload(const void* data, uint64_t bytes) {
    DeviceBuffer buffer = allocate(bytes);
    copy_to_device(buffer.data(), data, bytes, stream_);
    stream_.synchronize();
    return buffer;
  }

  Stream stream_ = must(Stream::make());
  double read_ = 0;
};

}  // namespace
}  // namespace lorikeet::kernels

int main() {
  const auto count = lorikeet::kernels::device_count();
  if (!count || *count == 0) {
    fmt::print(stderr, "no CUDA device: {}\n", count ? "this host has none" : count.error().message);
    return 1;
  }
  lorikeet::kernels::Bench().run();
}
