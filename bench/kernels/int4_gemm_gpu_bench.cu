// The int4 products of Qwen2.5-14B on the device against their floors, which are measured in the same run: read-only
// bandwidth (bulk copies), copy bandwidth, and cuBLASLt's fp16 products of the same shapes.
//
// Weights are rotated over more than four times the L2, data is random, each figure is the median of graph replays and
// includes the launch boundaries between products. As in a step of the model, blocks begin beside those of the product
// in front where both find room.
//
//   int4_gemm_gpu_bench [--json FILE] [--sweep | --cards] [--apart] [--shape NAME] [--rows M] [--tensor-parallel-size N]
//     --sweep: compares launch shapes for up to 512 tokens
//     --cards: what cards without Hopper's warpgroup steps, with 99 and 163 KiB of shared memory for a block, run for 65
//              to 512 tokens, on as many multiprocessors as are here; unpacked weights and cuBLASLt beside it
//     --apart: no block begins beside one of the product in front
//     --tensor-parallel-size: the products of one of N ranks
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "bench/kernels/gpu_floors.cuh"
#include "kernels/cuda/library_gemm.h"
#include "kernels/int4/decode/int4_decode.h"
#include "kernels/int4/int4_gemm_cuda.h"
#include "kernels/int4/prefill/int4_prefill.h"
#include "kernels/int4/prefill/int4_warp_prefill.h"
#include "kernels/int4/prefill/unpacked_gemm.h"

namespace lorikeet::kernels {
namespace {

using bench::allocate;
using bench::microseconds;
using bench::must;
using bench::random_halves;

constexpr uint64_t kRotatedBytes = 320ULL << 20;

struct Shape {
  const char* name;
  int32_t n, k;
  bool paired;
};
// Of one rank.
std::vector<Shape> shapes_of(int32_t ranks) {
  return {{"qkv", 7168 / ranks, 5120, false},
          {"o", 5120, 5120 / ranks, false},
          {"gate_up", 27648 / ranks, 5120, true},
          {"down", 5120, 13824 / ranks, false}};
}
constexpr int32_t kRows[] = {1, 2, 4, 8, 16, 32, 64, 80, 96, 128, 192, 256, 384, 512, 1024, 2048, 4096};
constexpr int32_t kMostRows = 4096;

class Bench {
 public:
  enum class What { products, sweep, cards };
  Bench(What what, bool apart, std::string shape, int32_t rows, int32_t ranks)
      : shapes_(shapes_of(ranks)), what_(what), apart_(apart), only_shape_(std::move(shape)), only_rows_(rows) {}

  void run() {
    const DeviceProperties properties = device_properties();
    memory_ = bench::measure_memory(stream_);
    x_ = random_halves(static_cast<int64_t>(kMostRows) * 13824, 1, stream_);
    y_ = allocate(static_cast<uint64_t>(kMostRows) * 27648 * 2);
    fmt::print("{}: {} SMs, read {:.3f} TB/s (bulk copies), copy {:.3f} TB/s (read + write)\n", properties.name,
               properties.multiprocessors, memory_.read / 1e12, memory_.copy / 1e12);
    const auto measure_shapes = [&] {
      for (const Shape& shape : shapes_) {
        if (only_shape_.empty() || only_shape_ == shape.name) measure_shape(shape);
      }
    };
    measure_shapes();
    if (what_ != What::products) return;
    // What a decode step runs was measured before anything that heats the device and lowers its clocks.
    decode_done_ = true;
    measure_shapes();
    measure_library();
    fmt::print("cuBLASLt fp16: at best {:.0f} TFLOP/s on these shapes\n", best_flops_ / 1e12);
    fmt::print("{:8} {:>5} {:>9} {:>9} {:>7} {:>8} {:>10} {:>10}\n", "shape", "m", "us", "floor us", "share", "TB/s",
               "cuBLAS us", "of cuBLAS");
    for (const Measured& product : measured_) report(product);
  }

  void write_json(const std::string& path) const {
    std::ofstream out(path);
    out << fmt::format(
        "{{\"device\": \"{}\", \"read_bytes_per_second\": {:.4g}, \"copy_bytes_per_second\": {:.4g}, "
        "\"library_flops\": {:.4g},\n \"products\": [\n{}\n]}}\n",
        device_properties().name, memory_.read, memory_.copy, best_flops_, fmt::join(rows_, ",\n"));
  }

 private:
  struct Measured {
    const Shape* shape;
    size_t row;  // of kRows
    double us;
    uint64_t weight_bytes;
  };

  void measure_library() {
    LibraryGemm library = must(LibraryGemm::make());
    for (const Shape& shape : shapes_) {
      const int64_t size = static_cast<int64_t>(shape.n) * shape.k;
      const int copies = static_cast<int>(std::max<int64_t>(2, static_cast<int64_t>(kRotatedBytes) / (2 * size)));
      const DeviceBuffer weights = random_halves(size * copies, 2, stream_);
      for (const int32_t m : kRows) {
        const double us = microseconds(stream_, [&] {
          for (int i = 0; i < copies; i++) {
            LibraryGemmArgs args;
            args.x = x_.data();
            args.x_stride = shape.k;
            args.weight = weights.as<__half>() + size * i;
            args.out = y_.data();
            args.out_stride = shape.n;
            args.m = m;
            args.n = shape.n;
            args.k = shape.k;
            library.run(args, stream_);
          }
        });
        library_us_.push_back(us / copies);
        best_flops_ = std::max(best_flops_, 2e6 * static_cast<double>(size) * m * copies / us);
      }
    }
  }

  void measure_shape(const Shape& shape) {
    const auto bytes_each = static_cast<uint64_t>(shape.n) * static_cast<uint64_t>(shape.k) / 2;
    const int copies = static_cast<int>(kRotatedBytes / bytes_each) + 1;
    std::vector<PackedInt4Weight> weights;
    for (int i = 0; i < copies; i++) {
      weights.push_back(
          must(PackedInt4Weight::random(shape.n, shape.k, shape.paired, static_cast<uint64_t>(i) + 1, stream_)));
    }
    Int4GemmArgs args;
    args.x = x_.data();
    args.x_stride = shape.k;
    args.y = y_.data();
    args.y_stride = shape.paired ? shape.n / 2 : shape.n;
    args.silu_mul = shape.paired;
    args.follows_product = !apart_;
    if (what_ == What::cards) return compare_cards(shape, weights, args);
    if (what_ == What::sweep) {
      if (only_rows_ <= kInt4DecodeRows) sweep_shapes(shape, weights, args);
      if (only_rows_ == 0 || only_rows_ > kInt4DecodeRows) sweep_prefill(shape, weights, args);
      return;
    }

    Int4Gemm gemm = must(Int4Gemm::make(kMostRows, shape.n, shape.k));
    for (size_t r = 0; r < std::size(kRows); r++) {
      args.m = kRows[r];
      if (only_rows_ != 0 && only_rows_ != args.m) continue;
      if ((args.m > kInt4DecodeRows) != decode_done_) continue;
      const int used = args.m > kInt4DecodeRows ? std::min(copies, 4) : copies;
      const double us = microseconds(stream_,
                                     [&] {
                                       for (int i = 0; i < used; i++)
                                         gemm.run(weights[static_cast<size_t>(i)], args, stream_);
                                     }) /
                        used;
      measured_.push_back({&shape, r, us, weights[0].data.bytes()});
    }
  }

  void sweep_shapes(const Shape& shape, const std::vector<PackedInt4Weight>& weights, Int4GemmArgs& args) {
    using X = Int4DecodeWish::X;
    using Steps = Int4DecodeWish::Steps;
    const Int4DecodeDevice device = Int4DecodeDevice::current();
    for (const int32_t m : {1, 2, 4, 8, 16, 32, 64}) {
      if (only_rows_ != 0 && only_rows_ != m) continue;
      args.m = m;
      std::vector<Int4DecodeWish> wishes;
      for (const int32_t cluster : {1, 2}) {
        for (const auto& [chunk, depth] :
             {std::pair{1, 4}, std::pair{1, 6}, std::pair{1, 8}, std::pair{2, 2}, std::pair{2, 3}, std::pair{2, 4},
              std::pair{2, 5}, std::pair{3, 2}, std::pair{3, 3}, std::pair{4, 2}, std::pair{4, 3}, std::pair{5, 2}}) {
          wishes.push_back({X::kept, cluster, depth, true, chunk});
        }
      }
      for (const Steps steps : {Steps::of_warps, Steps::of_groups}) {
        for (const int32_t cluster : {1, 4}) {
          for (const int32_t depth : {2, 3, 4, 6}) wishes.push_back({X::streamed, cluster, depth, true, 0, steps});
        }
      }
      wishes.push_back({X::any, 0, 0, false});
      for (const Int4DecodeWish& wish : wishes) {
        if (!int4_decode_fits(weights[0], m, wish, device)) continue;
        const Int4DecodeShape launch = shape_int4_decode(weights[0], m, Dtype::f16, wish, device);
        if (wish.depth > launch.depth || (wish.chunk > 0 && wish.chunk != launch.chunk)) continue;
        const double us = microseconds(stream_,
                                       [&] {
                                         for (const PackedInt4Weight& w : weights)
                                           int4_decode(w, args, launch, stream_, !apart_ && launch.leaves_room);
                                       }) /
                          static_cast<double>(weights.size());
        fmt::print(
            "{:8} m {:2} {} blocks {:3} cluster {} depth {} chunk {} round {:2} overlap {:d}: {:6.2f} us, "
            "{:4.1f} "
            "%\n",
            shape.name, m,
            launch.groups      ? "groups "
            : launch.streams_x ? "streams"
                               : "keeps  ",
            launch.blocks, launch.cluster, launch.depth, launch.chunk, launch.round_tiles, launch.overlap, us,
            100 * static_cast<double>(weights[0].data.bytes()) / memory_.read / us * 1e6);
      }
    }
  }

  void sweep_prefill(const Shape& shape, const std::vector<PackedInt4Weight>& weights, Int4GemmArgs& args) {
    if (!int4_prefill_available()) return;
    for (const int32_t m : {80, 96, 128, 192, 256, 384, 512, 1024, 2048, 4096}) {
      if (only_rows_ == 0 ? m > 512 : only_rows_ != m) continue;
      args.m = m;
      const int32_t multiprocessors = device_properties().multiprocessors;
      const Int4PrefillScratch scratch = must(Int4PrefillScratch::make(multiprocessors));
      const Int4PrefillShape chosen = shape_int4_prefill(weights[0], m, multiprocessors);
      for (const Int4PrefillShape& launch : int4_prefill_shapes(weights[0], m, multiprocessors)) {
        const double us = microseconds_each(
            weights, [&](const PackedInt4Weight& w) { int4_prefill(w, args, launch, scratch, stream_); });
        const bool is_chosen = chosen.columns == launch.columns && chosen.cluster == launch.cluster &&
                               chosen.clusters == launch.clusters && chosen.alone == launch.alone;
        fmt::print("{:8} m {:3} columns {:3} clusters {:3} of {} alone {} shares {:d}: {:7.2f} us{}\n", shape.name, m,
                   launch.columns, launch.clusters, launch.cluster, launch.alone, launch.shares, us,
                   is_chosen ? ", chosen" : "");
      }
    }
  }

  // Microseconds of a product of the first few weights, each by `run`.
  template <class Run>
  double microseconds_each(const std::vector<PackedInt4Weight>& weights, Run&& run) {
    const size_t used = std::min<size_t>(weights.size(), 4);
    const auto all = [&] {
      for (size_t i = 0; i < used; i++) run(weights[i]);
    };
    return microseconds(stream_, all) / static_cast<double>(used);
  }

  void compare_cards(const Shape& shape, const std::vector<PackedInt4Weight>& weights, Int4GemmArgs& args) {
    constexpr int32_t kMost = 512;
    LibraryGemm library = must(LibraryGemm::make());
    UnpackedInt4Gemm unpacked = must(UnpackedInt4Gemm::make(kMost, shape.n));
    const int64_t size = static_cast<int64_t>(shape.n) * shape.k;
    const DeviceBuffer halves = random_halves(size * 4, 2, stream_);
    const DeviceBuffer y = allocate(static_cast<uint64_t>(kMost) * static_cast<uint64_t>(shape.n) * 2);
    for (const int32_t m : {80, 96, 128, 192, 256, 384, 512}) {
      if (only_rows_ != 0 && only_rows_ != m) continue;
      args.m = m;
      int64_t next = 0;
      const double of_library = microseconds_each(weights, [&](const PackedInt4Weight&) {
        LibraryGemmArgs product;
        product.x = x_.data();
        product.x_stride = product.k = shape.k;
        product.weight = halves.as<__half>() + size * (next++ % 4);
        product.out = y.data();
        product.out_stride = product.n = shape.n;
        product.m = m;
        library.run(product, stream_);
      });
      const double of_unpacked =
          microseconds_each(weights, [&](const PackedInt4Weight& w) { unpacked.run(w, args, stream_); });
      Int4Gemm here = must(Int4Gemm::make(kMost, shape.n, shape.k));
      const double of_here = microseconds_each(weights, [&](const PackedInt4Weight& w) { here.run(w, args, stream_); });
      for (const uint64_t kib : {99, 163}) {
        Int4DecodeDevice card;
        card.multiprocessors = device_properties().multiprocessors;
        card.shared_bytes_per_block = kib << 10;
        const Int4WarpPrefillScratch scratch = must(Int4WarpPrefillScratch::make(card));
        const Int4WarpPrefillShape chosen = shape_int4_warp_prefill(weights[0], m, card);
        for (const Int4WarpPrefillShape& launch : int4_warp_prefill_shapes(weights[0], m, card)) {
          const double us = microseconds_each(
              weights, [&](const PackedInt4Weight& w) { int4_warp_prefill(w, args, launch, scratch, stream_); });
          const bool is_chosen = chosen.columns == launch.columns && chosen.blocks == launch.blocks;
          fmt::print(
              "{:8} m {:3} {:3} KiB columns {:3} blocks {:3}: {:7.2f} us; unpacked {:7.2f} ({:4.2f}x), "
              "cuBLASLt "
              "{:7.2f} ({:4.2f}x), what runs here {:7.2f}{}\n",
              shape.name, m, kib, launch.columns, launch.blocks, us, of_unpacked, of_unpacked / us, of_library,
              of_library / us, of_here, is_chosen ? ", chosen" : "");
        }
      }
      std::fflush(stdout);
    }
  }

  void report(const Measured& product) {
    const Shape& shape = *product.shape;
    const int32_t m = kRows[product.row];
    const double us = product.us;
    const double library_us =
        library_us_[static_cast<size_t>(&shape - shapes_.data()) * std::size(kRows) + product.row];
    const double outputs = shape.paired ? shape.n / 2.0 : shape.n;
    const double bytes = static_cast<double>(product.weight_bytes) + 2.0 * m * (shape.k + outputs);
    const double flops = 2.0 * m * shape.n * shape.k;
    const double floor_us = 1e6 * std::max(bytes / memory_.read, flops / best_flops_);
    fmt::print("{:8} {:5} {:9.2f} {:9.2f} {:6.1f}% {:8.2f} {:10.2f} {:9.2f}x\n", shape.name, m, us, floor_us,
               100 * floor_us / us, bytes / us / 1e6, library_us, library_us / us);
    std::fflush(stdout);
    rows_.push_back(
        fmt::format("  {{\"shape\": \"{}\", \"n\": {}, \"k\": {}, \"m\": {}, \"us\": {:.3f}, \"floor_us\": "
                    "{:.3f}, \"library_us\": {:.3f}}}",
                    shape.name, shape.n, shape.k, m, us, floor_us, library_us));
  }

  const std::vector<Shape> shapes_;
  What what_;
  bool apart_;
  std::string only_shape_;  // or empty
  int32_t only_rows_;       // or 0
  Stream stream_ = must(Stream::make());
  DeviceBuffer x_, y_;
  Floors memory_;
  double best_flops_ = 1;
  bool decode_done_ = false;
  std::vector<Measured> measured_;
  std::vector<double> library_us_;  // [shapes][rows]
  std::vector<std::string> rows_;
};

}  // namespace
}  // namespace lorikeet::kernels

int main(int argc, char** argv) {
  using lorikeet::kernels::Bench;
  Bench::What what = Bench::What::products;
  bool apart = false;
  std::string json;
  std::string shape;
  int32_t rows = 0;
  int32_t ranks = 1;
  for (int i = 1; i < argc; i++) {
    if (std::strcmp(argv[i], "--sweep") == 0) {
      what = Bench::What::sweep;
    } else if (std::strcmp(argv[i], "--cards") == 0) {
      what = Bench::What::cards;
    } else if (std::strcmp(argv[i], "--apart") == 0) {
      apart = true;
    } else if (std::strcmp(argv[i], "--json") == 0 && i + 1 < argc) {
      json = argv[++i];
    } else if (std::strcmp(argv[i], "--shape") == 0 && i + 1 < argc) {
      shape = argv[++i];
    } else if (std::strcmp(argv[i], "--rows") == 0 && i + 1 < argc) {
      rows = std::atoi(argv[++i]);
    } else if (std::strcmp(argv[i], "--tensor-parallel-size") == 0 && i + 1 < argc) {
      ranks = std::clamp(std::atoi(argv[++i]), 1, 8);
    } else {
      fmt::print(stderr,
                 "usage: {} [--json FILE] [--sweep | --cards] [--apart] [--shape NAME] [--rows M] "
                 "[--tensor-parallel-size N]\n",
                 argv[0]);
      return 2;
    }
  }
  if (const auto used = lorikeet::kernels::use_device(0); !used) {
    fmt::print(stderr, "{}\n", used.error().message);
    return 1;
  }
  Bench bench(what, apart, shape, rows, ranks);
  bench.run();
  if (!json.empty()) bench.write_json(json);
  return 0;
}
