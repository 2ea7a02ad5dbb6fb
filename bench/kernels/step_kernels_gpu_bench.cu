// The kernels of a step beside the int4 products, at Qwen2.5-14B's shapes: attention, lm_head, sampling, norms. Each
// figure stands beside its floor, from the memory bandwidth and the cuBLASLt rate measured in the same run. Buffers are
// rotated over more than the L2; figures are medians of graph replays and include the launch boundaries.
#include <string>

#include "bench/kernels/gpu_floors.cuh"
#include "kernels/attention/attention_decode_cuda.h"
#include "kernels/attention/attention_prefill_cuda.h"
#include "kernels/cuda/library_gemm.h"
#include "kernels/dense/dense_gemm_cuda.h"
#include "kernels/layer/rms_norm_cuda.h"
#include "kernels/layer/rope_cuda.h"
#include "kernels/sampling/logprobs_cuda.h"
#include "kernels/sampling/sampling_cuda.h"

namespace lorikeet::kernels {
namespace {

using bench::allocate;
using bench::must;
using bench::random_halves;

constexpr int32_t kHidden = 5120, kHeads = 40, kKvHeads = 8, kHeadDim = 128, kVocab = 152064, kBlockSize = 16;
constexpr int64_t kQkvWidth = (kHeads + 2 * kKvHeads) * kHeadDim;
constexpr uint64_t kRotatedBytes = 256ULL << 20;

class Bench {
 public:
  // only: the kernels of that name; empty: all.
  void run(const std::string& only) {
    const DeviceProperties properties = device_properties();
    memory_ = bench::measure_memory(stream_);
    flops_ = measure_flops();
    fmt::print(
        "{}: {} SMs, read {:.3f} TB/s (bulk copies), copy {:.3f} TB/s (read + write), cuBLASLt fp16 {:.0f} TFLOP/s\n",
        properties.name, properties.multiprocessors, memory_.read / 1e12, memory_.copy / 1e12, flops_ / 1e12);
    fmt::print("{:60} {:>10} {:>10} {:>7}\n", "kernel", "us", "floor us", "share");
    const auto wanted = [&](const char* name) { return only.empty() || only == name; };
    if (wanted("--decode-attention")) {
      for (const int32_t rows : {1, 8, 32, 64}) {
        for (const int32_t context : {512, 4096}) decode_attention(rows, context, false);
        decode_attention(rows, 512, true);
      }
      for (const int32_t rows : {1, 8}) {
        for (const int32_t context : {8192, 32768}) {
          for (const KvDtype kv : {KvDtype::f16, KvDtype::f8_e4m3}) decode_attention(rows, context, true, kv);
        }
      }
      for (const int32_t kv_heads : {8, 2, 1}) {  // of a whole model, and of ranks that share it
        for (const int32_t context : {4096, 8192, 32768, 131072}) {
          decode_attention(1, context, true, KvDtype::f16, kv_heads);
        }
      }
      for (const int32_t kv_heads : {2, 1}) {
        for (const int32_t rows : {8, 32}) decode_attention(rows, 32768, true, KvDtype::f16, kv_heads);
      }
    }
    if (wanted("--prefill-attention")) {
      for (const int32_t count : {512, 2048, 8192}) prefill_attention(count);
    }
    if (wanted("--lm-head")) {
      for (const int32_t rows : {1, 8, 16, 32, 64}) lm_head(rows);
    }
    if (wanted("--draws")) {
      for (const int32_t rows : {1, 64}) sampling(rows);
    }
    if (wanted("--small")) {
      for (const int32_t tokens : {1, 64, 2048}) small_kernels(tokens);
    }
  }

 private:
  double measure_flops() {
    LibraryGemm library = must(LibraryGemm::make());
    const int32_t size = 8192;
    const DeviceBuffer x = random_halves(int64_t{size} * size, 1, stream_);
    const DeviceBuffer weight = random_halves(int64_t{size} * size, 2, stream_);
    const DeviceBuffer out = allocate(uint64_t{2} * size * size);
    LibraryGemmArgs args;
    args.x = x.data();
    args.x_stride = size;
    args.weight = weight.data();
    args.out = out.data();
    args.out_stride = size;
    args.m = args.n = args.k = size;
    return 2.0 * size * size * size / bench::microseconds(stream_, [&] { library.run(args, stream_); }) * 1e6;
  }

  DeviceBuffer upload(const std::vector<int32_t>& values) {
    DeviceBuffer buffer = allocate(values.size() * 4);
    copy_to_device(buffer.data(), values.data(), buffer.bytes(), stream_);
    stream_.synchronize();
    return buffer;
  }

  void report(const std::string& name, double us, double bytes, double flops = 0) {
    const double floor_us = 1e6 * std::max(bytes / memory_.read, flops / flops_);
    fmt::print("{:60} {:10.2f} {:10.2f} {:6.1f}%\n", name, us, floor_us, 100 * floor_us / us);
    std::fflush(stdout);
  }

  // rotate: with the bias, RoPE and the write of the newest keys and values.
  void decode_attention(int32_t rows, int32_t context, bool rotate, KvDtype kv = KvDtype::f16,
                        int32_t kv_heads = kKvHeads) {
    const int32_t heads = kv_heads * (kHeads / kKvHeads);
    const int64_t qkv_width = (heads + 2 * kv_heads) * kHeadDim;
    const int32_t blocks = (context + kBlockSize - 1) / kBlockSize;
    const int64_t layer = static_cast<int64_t>(rows) * blocks * kBlockSize * kv_heads * kHeadDim;
    const int layers = static_cast<int>(static_cast<int64_t>(kRotatedBytes) / (4 * layer)) + 1;
    const DeviceBuffer keys = random_halves(layer * layers, 1, stream_);
    const DeviceBuffer values = random_halves(layer * layers, 2, stream_);
    const DeviceBuffer scales = allocate(static_cast<uint64_t>(layer / kHeadDim) * sizeof(float));
    fill_bytes(scales.data(), 0x3c, scales.bytes(), stream_);
    const auto bytes = static_cast<int64_t>(size_of(kv));
    const DeviceBuffer q = random_halves(rows * qkv_width, 3, stream_);
    const DeviceBuffer out = allocate(static_cast<uint64_t>(rows) * heads * kHeadDim * 2);
    const DecodeDivision division(heads, kv_heads, device_properties().multiprocessors);
    std::vector<int32_t> tokens, contexts, begins, tables;
    for (int32_t r = 0; r < rows; r++) {
      tokens.push_back(r);
      contexts.push_back(context);
      begins.push_back(static_cast<int32_t>(tables.size()));
      for (int32_t b = 0; b < blocks; b++) tables.push_back((r * blocks + b) * 7 % (rows * blocks));
    }
    std::vector<int32_t> pieces(static_cast<size_t>(DecodeDivision::entries(rows)));
    division.write(contexts, pieces.data());
    const DeviceBuffer device_tokens = upload(tokens), device_contexts = upload(contexts),
                       device_begins = upload(begins), device_tables = upload(tables), device_pieces = upload(pieces);
    const DeviceBuffer workspace = allocate(decode_attention_workspace(rows, heads, kv_heads, kHeadDim));
    fill_bytes(workspace.data(), 0, workspace.bytes(), stream_);
    DecodeAttentionArgs args;
    args.q = q.data();
    args.q_stride = qkv_width;
    args.out = out.data();
    args.heads = heads;
    args.scale = 0.088F;
    args.query_tokens = device_tokens.as<int32_t>();
    args.contexts = device_contexts.as<int32_t>();
    args.table_begins = device_begins.as<int32_t>();
    args.block_tables = device_tables.as<int32_t>();
    args.pieces = device_pieces.as<int32_t>();
    args.rows = rows;
    args.division = division;
    args.workspace = workspace.as<float>();
    std::vector<int32_t> slots;
    for (int32_t r = 0; r < rows; r++) {
      const int32_t last = context - 1;
      slots.push_back(tables[static_cast<size_t>(r * blocks + last / kBlockSize)] * kBlockSize + last % kBlockSize);
    }
    const DeviceBuffer device_slots = upload(slots);
    const DeviceBuffer cos_sin = allocate(static_cast<uint64_t>(rows) * kHeadDim * 4);
    const DeviceBuffer bias = allocate(static_cast<uint64_t>(qkv_width) * 4);
    fill_bytes(cos_sin.data(), 0, cos_sin.bytes(), stream_);
    fill_bytes(bias.data(), 0, bias.bytes(), stream_);
    args.rotate = rotate;
    args.rope.qkv = q.data();
    args.rope.bias = bias.as<float>();
    args.rope.cos_sin = cos_sin.as<float>();
    args.rope.kv_slots = device_slots.as<int32_t>();
    args.rope.tokens = rows;
    args.rope.heads = heads;
    args.rope.cache.kv_heads = kv_heads;
    const double us = bench::microseconds(stream_,
                                          [&] {
                                            for (int l = 0; l < layers; l++) {
                                              args.cache = {keys.as<char>() + l * layer * bytes,
                                                            values.as<char>() + l * layer * bytes,
                                                            kv,
                                                            kv_heads,
                                                            kBlockSize,
                                                            kHeadDim,
                                                            scales.as<float>(),
                                                            scales.as<float>()};
                                              args.rope.cache = args.cache;
                                              decode_attention_cuda(args, stream_);
                                            }
                                          }) /
                      layers;
    const double scale_bytes = kv == KvDtype::f8_e4m3 ? 8.0 / kHeadDim : 0;
    const std::string others = kv_heads == kKvHeads ? "" : fmt::format(", {} KV heads", kv_heads);
    report(fmt::format("decode attention, {} rows, context {}, {}{}{}", rows, context, name_of(kv),
                       rotate ? ", RoPE" : "", others),
           us, (2.0 * static_cast<double>(bytes) + scale_bytes) * static_cast<double>(layer));
  }

  void prefill_attention(int32_t count) {
    const int32_t blocks = count / kBlockSize;
    const int64_t layer = static_cast<int64_t>(count) * kKvHeads * kHeadDim;
    const DeviceBuffer keys = random_halves(layer, 1, stream_);
    const DeviceBuffer values = random_halves(layer, 2, stream_);
    const DeviceBuffer q = random_halves(count * kQkvWidth, 3, stream_);
    const DeviceBuffer out = allocate(static_cast<uint64_t>(count) * kHeads * kHeadDim * 2);
    std::vector<int32_t> tables, tile_rows, tile_firsts;
    for (int32_t b = 0; b < blocks; b++) tables.push_back(b);
    for (int32_t first = 0; first < count; first += kPrefillQueryTile) {
      tile_rows.push_back(0);
      tile_firsts.push_back(first);
    }
    const DeviceBuffer zero = upload({0}), counts = upload({count}), device_tables = upload(tables),
                       device_tile_rows = upload(tile_rows), device_tile_firsts = upload(tile_firsts);
    PrefillAttentionArgs args;
    args.q = q.data();
    args.q_stride = kQkvWidth;
    args.out = out.data();
    args.heads = kHeads;
    args.cache = {keys.data(), values.data(), KvDtype::f16, kKvHeads, kBlockSize, kHeadDim};
    args.scale = 0.088F;
    args.first_tokens = args.starts = args.table_begins = zero.as<int32_t>();
    args.counts = counts.as<int32_t>();
    args.block_tables = device_tables.as<int32_t>();
    args.tile_rows = device_tile_rows.as<int32_t>();
    args.tile_firsts = device_tile_firsts.as<int32_t>();
    args.tiles = static_cast<int32_t>(tile_rows.size());
    const double us = bench::microseconds(stream_, [&] { prefill_attention_cuda(args, stream_); });
    report(fmt::format("prefill attention, {} tokens", count), us, 4.0 * static_cast<double>(layer),
           2.0 * count * count * kHeads * kHeadDim);
  }

  void lm_head(int32_t rows) {
    const DeviceBuffer weight = random_halves(int64_t{kVocab} * kHidden, 1, stream_);
    const DeviceBuffer x = random_halves(int64_t{rows} * kHidden, 2, stream_);
    const DeviceBuffer out = allocate(uint64_t{4} * static_cast<uint64_t>(rows) * kVocab);
    DenseGemmArgs args;
    args.x = x.data();
    args.x_stride = kHidden;
    args.weight = weight.data();
    args.out = out.data();
    args.out_stride = kVocab;
    args.out_dtype = Dtype::f32;
    args.m = rows;
    args.n = kVocab;
    args.k = kHidden;
    const double us = bench::microseconds(stream_, [&] { dense_gemm_cuda(args, stream_); });
    const double bytes = static_cast<double>(weight.bytes() + out.bytes());
    report(fmt::format("lm_head, {} rows", rows), us, bytes, 2.0 * rows * kVocab * kHidden);
    LibraryGemm library = must(LibraryGemm::make());
    LibraryGemmArgs same;
    same.x = args.x;
    same.x_stride = kHidden;
    same.weight = args.weight;
    same.out = args.out;
    same.out_stride = kVocab;
    same.out_dtype = Dtype::f32;
    same.m = rows;
    same.n = kVocab;
    same.k = kHidden;
    report(fmt::format("lm_head, {} rows, cuBLASLt", rows),
           bench::microseconds(stream_, [&] { library.run(same, stream_); }), bytes, 2.0 * rows * kVocab * kHidden);
  }

  void sampling(int32_t rows) {
    const DeviceBuffer halves = random_halves(int64_t{rows} * kVocab, 5, stream_);
    const DeviceBuffer logits = allocate(uint64_t{4} * static_cast<uint64_t>(rows) * kVocab);
    std::vector<__half> host(static_cast<size_t>(rows) * kVocab);
    std::vector<float> floats;
    copy_to_host(host.data(), halves.data(), halves.bytes(), stream_);
    stream_.synchronize();
    for (const __half h : host) floats.push_back(3 * __half2float(h));
    copy_to_device(logits.data(), floats.data(), logits.bytes(), stream_);
    const DeviceBuffer workspace =
        allocate(unfiltered_draw_workspace(rows, kVocab) + logit_statistics_workspace(rows, kVocab));
    fill_bytes(workspace.data(), 0, workspace.bytes(), stream_);
    const DeviceBuffer cut_workspace = allocate(vocab_cut_workspace(kVocab));
    fill_bytes(cut_workspace.data(), 0, cut_workspace.bytes(), stream_);
    const DeviceBuffer best = allocate(static_cast<uint64_t>(rows) * sizeof(Candidate));
    const DeviceBuffer drawn = allocate(static_cast<uint64_t>(rows) * 4);
    const DeviceBuffer device_rows = allocate(static_cast<uint64_t>(rows) * sizeof(DrawRow));
    const double bytes = 4.0 * rows * kVocab;
    for (const int kind : {0, 1, 2, 3, 4, 5}) {
      std::vector<DrawRow> draws(static_cast<size_t>(rows));
      for (int32_t r = 0; r < rows; r++) {
        DrawRow& draw = draws[static_cast<size_t>(r)];
        draw.seed = static_cast<uint64_t>(r);
        draw.logits_row = draw.draw_row = r;
        draw.temperature = kind == 0 ? 0 : 0.7F;
        draw.top_k = kind == 2 ? 20 : 0;
        draw.top_p = kind == 2 || kind == 3 ? 0.9F : kind == 5 ? 0.999F : 1;
        draw.min_p = kind == 4 ? 0.05F : 0;
      }
      copy_to_device(device_rows.data(), draws.data(), device_rows.bytes(), stream_);
      stream_.synchronize();
      const char* names[] = {"greedy", "temperature", "top_k 20, top_p 0.9", "top_p 0.9", "min_p 0.05", "top_p 0.999"};
      const double us = bench::microseconds(stream_, [&] {
        if (kind < 2) {
          UnfilteredDrawArgs args;
          args.shard = {logits.as<float>(), kVocab, 0, kVocab};
          args.rows = device_rows.as<DrawRow>();
          args.num_rows = rows;
          args.best = best.as<Candidate>();
          args.drawn = drawn.as<int32_t>();
          args.workspace = workspace.data();
          args.workspace_rows = rows;
          draw_unfiltered_cuda(args, stream_);
        } else {
          FilteredDrawArgs args;
          args.logits = logits.as<float>();
          args.stride = kVocab;
          args.vocab_begins[1] = kVocab;
          args.rows = device_rows.as<DrawRow>();
          args.num_rows = rows;
          args.drawn = drawn.as<int32_t>();
          args.workspace = cut_workspace.data();
          draw_filtered_cuda(args, stream_);
        }
      });
      report(fmt::format("draw, {} rows, {}", rows, names[kind]), us, bytes);
    }
    std::vector<LogprobRow> wanted(static_cast<size_t>(rows));
    for (int32_t r = 0; r < rows; r++) wanted[static_cast<size_t>(r)] = {r, 20, 0, -1};
    const DeviceBuffer device_wanted = allocate(wanted.size() * sizeof(LogprobRow));
    copy_to_device(device_wanted.data(), wanted.data(), device_wanted.bytes(), stream_);
    stream_.synchronize();
    const DeviceBuffer statistics = allocate(wanted.size() * sizeof(LogitStatistics));
    const DeviceBuffer top = allocate(wanted.size() * 20 * sizeof(Candidate));
    const LogitsShard shard = {logits.as<float>(), kVocab, 0, kVocab};
    LogprobArgs args;
    args.shard = shard;
    args.rows = device_wanted.as<LogprobRow>();
    args.num_rows = rows;
    args.statistics = statistics.as<LogitStatistics>();
    args.workspace = workspace.as<char>() + unfiltered_draw_workspace(rows, kVocab);
    args.workspace_rows = rows;
    fill_bytes(workspace.data(), 0, workspace.bytes(), stream_);
    report(fmt::format("logit statistics, {} rows", rows),
           bench::microseconds(stream_, [&] { logit_statistics_cuda(args, stream_); }), bytes);
    TopTokensArgs top_args;
    top_args.shard = shard;
    top_args.rows = args.rows;
    top_args.num_rows = rows;
    top_args.best = top.as<Candidate>();
    top_args.stride = 20;
    top_args.workspace = cut_workspace.data();
    top_args.statistics = args.workspace;
    top_args.statistics_rows = rows;
    report(fmt::format("20 best tokens behind statistics, {} rows", rows),
           bench::microseconds(stream_, [&] { top_tokens_cuda(top_args, stream_); }), bytes);
  }

  void small_kernels(int32_t tokens) {
    const DeviceBuffer residual = allocate(uint64_t{4} * static_cast<uint64_t>(tokens) * kHidden);
    fill_bytes(residual.data(), 0, residual.bytes(), stream_);
    const DeviceBuffer delta = random_halves(int64_t{tokens} * kHidden, 1, stream_);
    const DeviceBuffer weight = allocate(4 * kHidden);
    fill_bytes(weight.data(), 0, weight.bytes(), stream_);
    const DeviceBuffer out = allocate(static_cast<uint64_t>(tokens) * kHidden * 2);
    AddRmsNormArgs norm;
    norm.residual = residual.as<float>();
    norm.delta = delta.data();
    norm.weight = weight.as<float>();
    norm.epsilon = 1e-6F;
    norm.out = out.data();
    norm.tokens = tokens;
    norm.width = kHidden;
    constexpr int kRepeats = 20;
    report(fmt::format("add + RMSNorm, {} tokens", tokens),
           bench::microseconds(stream_,
                               [&] {
                                 for (int i = 0; i < kRepeats; i++) add_rms_norm_cuda(norm, stream_);
                               }) /
               kRepeats,
           12.0 * tokens * kHidden);

    const DeviceBuffer qkv = random_halves(tokens * kQkvWidth, 2, stream_);
    const DeviceBuffer cos_sin = allocate(static_cast<uint64_t>(tokens) * kHeadDim * 4);
    fill_bytes(cos_sin.data(), 0, cos_sin.bytes(), stream_);
    std::vector<int32_t> slots;
    for (int32_t t = 0; t < tokens; t++) slots.push_back(t);
    const DeviceBuffer kv_slots = upload(slots);
    const uint64_t kv_bytes = static_cast<uint64_t>(tokens + kBlockSize) * kKvHeads * kHeadDim * 2;
    const DeviceBuffer keys = allocate(kv_bytes), values = allocate(kv_bytes);
    RopeArgs rope;
    rope.qkv = qkv.data();
    rope.cos_sin = cos_sin.as<float>();
    rope.kv_slots = kv_slots.as<int32_t>();
    rope.tokens = tokens;
    rope.heads = kHeads;
    rope.cache = {keys.data(), values.data(), KvDtype::f16, kKvHeads, kBlockSize, kHeadDim};
    report(fmt::format("RoPE + KV write, {} tokens", tokens),
           bench::microseconds(stream_,
                               [&] {
                                 for (int i = 0; i < kRepeats; i++) rope_and_store_kv_cuda(rope, stream_);
                               }) /
               kRepeats,
           4.0 * static_cast<double>(tokens) * kQkvWidth);
  }

  Stream stream_ = must(Stream::make());
  Floors memory_;
  double flops_ = 1;
};

}  // namespace
}  // namespace lorikeet::kernels

int main(int argc, char** argv) {
  if (const auto used = lorikeet::kernels::use_device(0); !used) {
    fmt::print(stderr, "{}\n", used.error().message);
    return 1;
  }
  lorikeet::kernels::Bench().run(argc > 1 ? argv[1] : "");
  return 0;
}
