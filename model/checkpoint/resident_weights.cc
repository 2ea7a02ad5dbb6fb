#include "model/checkpoint/resident_weights.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "model/checkpoint/tensor_names.h"
#include "model/config/read_file.h"

namespace lorikeet::model {
namespace {

using kernels::DenseWeight;
using kernels::Dtype;
using kernels::Int4View;
using kernels::ResidentMemory;

constexpr std::string_view kLayout = "lorikeet-cpu-weights-1";
constexpr uint64_t kAlignment = 64;
constexpr uint64_t kHeaderBytesPerLayer = 16 << 10;  // twice what the entries of one need

constexpr std::array<std::string_view, kNumProjections> kProjectionNames = {"q", "k", "v", "o", "gate", "up", "down"};
constexpr std::array<std::string_view, 4> kNormNames = {"input_norm", "post_attention_norm", "q_norm", "k_norm"};

std::string linear_name(int32_t layer, Projection p) {
  return fmt::format("{}.{}", layer, kProjectionNames[static_cast<size_t>(p)]);
}

std::string norm_field(int32_t layer, NormKind kind) {
  return fmt::format("{}.{}", layer, kNormNames[static_cast<size_t>(kind)]);
}

using Metadata = std::map<std::string, std::string, std::less<>>;

Metadata metadata(int rank, int ranks, const std::string& origin) {
  return {{"layout", std::string(kLayout)},
          {"origin", origin},
          {"rank", std::to_string(rank)},
          {"ranks", std::to_string(ranks)}};
}

template <class T>
std::span<const uint8_t> as_bytes(std::span<const T> values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size_bytes()};
}

// Takes the weights of one rank out of an image.
class ImageReader {
 public:
  ImageReader(const SafetensorsHeader& header, std::span<const uint8_t> data, const ShardPlan& plan, int rank)
      : header_(header), data_(data), plan_(plan), config_(plan.config()), rank_(rank) {}

  Result<RankWeights> weights() {
    RankWeights weights;
    weights.embedding = dense("embedding", config_.vocab_size, config_.hidden_size);
    const Range vocab = plan_.shard(rank_).vocab;
    if (config_.tie_word_embeddings) {
      weights.lm_head = weights.embedding;
      weights.lm_head.n = vocab.size();
      if (error_.empty()) weights.lm_head.data = weights.embedding.row(vocab.begin);
    } else {
      weights.lm_head = dense("lm_head", vocab.size(), config_.hidden_size);
    }
    weights.final_norm = floats("final_norm", config_.hidden_size);
    for (int32_t i = 0; i < config_.num_layers && error_.empty(); ++i) weights.layers.push_back(layer(i));
    if (!error_.empty()) return fail("{}", error_);
    return weights;
  }

 private:
  LayerWeights layer(int32_t i) {
    LayerWeights layer;
    for (const NormKind kind : norms_of(config_)) {
      layer.norm(kind) = floats(norm_field(i, kind), norm_size(config_, kind));
    }
    for (const Projection p : kProjections) {
      const std::string name = linear_name(i, p);
      const int32_t outputs = plan_.outputs(p, rank_).size(), inputs = plan_.inputs(p, rank_).size();
      LinearWeights& linear = layer.at(p);
      if (has(name + ".q")) {
        linear.weight = int4(name, outputs, inputs);
      } else {
        linear.weight = dense(name + ".weight", outputs, inputs);
      }
      if (has(name + ".bias")) linear.bias = floats(name + ".bias", outputs);
    }
    return layer;
  }

  Int4View int4(const std::string& name, int32_t outputs, int32_t inputs) {
    Int4View view;
    view.n = outputs;
    view.x_size = inputs;
    const int64_t columns = columns_of(name + ".q"), bounds = elements_of(name + ".run_begin");
    if (columns > INT32_MAX / 2 || bounds < 2 || bounds > INT32_MAX) wrong(name, "its sizes");
    if (!error_.empty()) return view;
    const int64_t stored = 2 * columns;
    view.k = static_cast<int32_t>(stored);
    view.q = array<uint8_t>(name + ".q", Dtype::u8, {outputs, columns});
    view.run_begin = array<int32_t>(name + ".run_begin", Dtype::i32, {bounds});
    view.scale = array<float>(name + ".scale", Dtype::f32, {bounds - 1, outputs});
    view.zero = array<uint8_t>(name + ".zero", Dtype::u8, {bounds - 1, outputs});
    if (has(name + ".permutation")) view.permutation = array<int32_t>(name + ".permutation", Dtype::i32, {stored});
    if (error_.empty()) check(name, view);
    return view;
  }

  // What products use as an index.
  void check(const std::string& name, const Int4View& view) {
    bool right = view.run_begin.front() == 0 && view.run_begin.back() == view.k;
    for (size_t run = 1; run < view.run_begin.size(); ++run) {
      const int32_t begin = view.run_begin[run - 1], end = view.run_begin[run];
      right &= end > begin && end % kernels::Int4Weight::kRunMultiple == 0;
    }
    if (!right) wrong(name, "its runs");
    const bool permuted = !view.permutation.empty();
    const auto outside = [&](int32_t from) { return from < -1 || from >= view.x_size; };
    if (permuted ? std::any_of(view.permutation.begin(), view.permutation.end(), outside) : view.k != view.x_size) {
      wrong(name, "its inputs");
    }
  }

  DenseWeight dense(const std::string& name, int32_t rows, int32_t columns) {
    DenseWeight weight{rows, columns, Dtype::f32, nullptr, nullptr};
    const TensorEntry* entry = find(name);
    if (entry == nullptr) return weight;
    if (entry->dtype != Dtype::f32 && entry->dtype != Dtype::f16 && entry->dtype != Dtype::bf16) {
      wrong(name, "its type");
      return weight;
    }
    weight.dtype = *entry->dtype;
    weight.data = bytes(name, weight.dtype, {rows, columns}).data();
    return weight;
  }

  std::vector<float> floats(const std::string& name, int32_t size) {
    const auto values = array<float>(name, Dtype::f32, {size});
    return {values.begin(), values.end()};
  }

  template <class T>
  std::span<const T> array(const std::string& name, Dtype dtype, std::initializer_list<int64_t> shape) {
    const auto found = bytes(name, dtype, shape);
    return {reinterpret_cast<const T*>(found.data()), found.size() / sizeof(T)};
  }

  std::span<const uint8_t> bytes(const std::string& name, Dtype dtype, std::initializer_list<int64_t> shape) {
    const TensorEntry* entry = find(name);
    if (entry == nullptr) return {};
    if (entry->dtype != dtype || !std::equal(shape.begin(), shape.end(), entry->shape.begin(), entry->shape.end())) {
      wrong(name, "its type or shape");
      return {};
    }
    if (entry->begin % kAlignment != 0) {
      wrong(name, "its place");
      return {};
    }
    return data_.subspan(entry->begin, entry->end - entry->begin);
  }

  bool has(const std::string& name) const { return header_.tensors.count(name) > 0; }

  const TensorEntry* find(const std::string& name) {
    const auto it = header_.tensors.find(name);
    if (it != header_.tensors.end()) return &it->second;
    wrong(name, "it, which is not there");
    return nullptr;
  }

  int64_t columns_of(const std::string& name) {
    const TensorEntry* entry = find(name);
    return entry == nullptr || entry->shape.size() != 2 ? 0 : entry->shape[1];
  }
  int64_t elements_of(const std::string& name) {
    const TensorEntry* entry = find(name);
    return entry == nullptr || entry->shape.size() != 1 ? 0 : entry->shape[0];
  }

  void wrong(const std::string& name, std::string_view what) {
    if (error_.empty()) error_ = fmt::format("resident weights: {}: {} cannot be right", name, what);
  }

  const SafetensorsHeader& header_;
  const std::span<const uint8_t> data_;
  const ShardPlan& plan_;
  const ModelConfig& config_;
  const int rank_;
  std::string error_;  // the first
};

}  // namespace

Result<std::string> weights_origin(const std::filesystem::path& dir, std::string_view load_format) {
  const auto config = read_file(dir / "config.json", kMaxTextFile);
  if (!config) return tl::unexpected(config.error());
  std::array<uint8_t, EVP_MAX_MD_SIZE> hash{};
  if (EVP_Digest(config->data(), config->size(), hash.data(), nullptr, EVP_sha256(), nullptr) != 1) {
    return fail("no digest of {} can be made", (dir / "config.json").string());
  }
  std::string text(load_format);
  text += ':';
  for (size_t i = 0; i < 16; ++i) text += fmt::format("{:02x}", hash[i]);
  return text;
}

ResidentWeights::ResidentWeights(const ShardPlan& plan, ResidentMemory memory)
    : config_(plan.config()),
      memory_(std::move(memory)),
      data_begin_(kHeaderBytesPerLayer * static_cast<uint64_t>(config_.num_layers + 1)) {}

Result<std::unique_ptr<ResidentWeights>> ResidentWeights::make(const ShardPlan& plan, int rank,
                                                               const std::string& origin) {
  auto memory = ResidentMemory::make(fmt::format("lorikeet-weights-{}", rank));
  if (!memory) return tl::unexpected(memory.error());
  std::unique_ptr<ResidentWeights> weights(new ResidentWeights(plan, *std::move(memory)));
  weights->header_.metadata = metadata(rank, plan.size(), origin);
  return weights;
}

Result<void> ResidentWeights::put_outer(RankWeights outer) {
  auto ok = put("embedding", outer.embedding);
  if (ok && !config_.tie_word_embeddings) ok = put("lm_head", outer.lm_head);
  if (ok) ok = put("final_norm", outer.final_norm);
  return ok;
}

Result<void> ResidentWeights::put_layer(int32_t layer, LayerWeights weights) {
  Result<void> ok;
  for (const NormKind kind : norms_of(config_)) {
    if (ok) ok = put(norm_field(layer, kind), weights.norm(kind));
  }
  for (const Projection p : kProjections) {
    const LinearWeights& linear = weights.at(p);
    const std::string name = linear_name(layer, p);
    if (!ok) break;
    const auto int4 = linear.int4();
    ok = int4 ? put(name, *int4) : put(name + ".weight", std::get<DenseWeight>(linear.weight));
    if (ok && !linear.bias.empty()) ok = put(name + ".bias", linear.bias);
  }
  return ok;
}

Result<void> ResidentWeights::put(const std::string& name, const DenseWeight& weight) {
  const size_t size = static_cast<size_t>(weight.n) * static_cast<size_t>(weight.k) * kernels::size_of(weight.dtype);
  return put(name, kernels::name_of(weight.dtype), {weight.n, weight.k},
             {static_cast<const uint8_t*>(weight.data), size});
}

Result<void> ResidentWeights::put(const std::string& name, const std::vector<float>& values) {
  return put(name, "F32", {static_cast<int64_t>(values.size())}, as_bytes(std::span(values)));
}

Result<void> ResidentWeights::put(const std::string& name, const Int4View& w) {
  const int64_t runs = w.runs();
  auto ok = put(name + ".q", "U8", {w.n, w.k / 2}, w.q);
  if (ok) ok = put(name + ".run_begin", "I32", {runs + 1}, as_bytes(w.run_begin));
  if (ok) ok = put(name + ".scale", "F32", {runs, w.n}, as_bytes(w.scale));
  if (ok) ok = put(name + ".zero", "U8", {runs, w.n}, w.zero);
  if (ok && !w.permutation.empty()) ok = put(name + ".permutation", "I32", {w.k}, as_bytes(w.permutation));
  return ok;
}

Result<void> ResidentWeights::put(const std::string& name, std::string_view dtype, std::initializer_list<int64_t> shape,
                                  std::span<const uint8_t> bytes) {
  const auto add = [&](const std::string& of, std::string_view type, std::vector<int64_t> size, uint64_t length) {
    header_.tensors[of] = {std::string(type), std::nullopt, std::move(size), end_, end_ + length};
    end_ += length;
  };
  if (const uint64_t gap = (kAlignment - end_ % kAlignment) % kAlignment; gap > 0) {
    add(fmt::format("pad.{}", pads_++), "U8", {static_cast<int64_t>(gap)}, gap);
  }
  const uint64_t begin = end_;
  add(name, dtype, shape, bytes.size());
  return memory_.write(data_begin_ + begin, bytes);
}

Result<ResidentMemory> ResidentWeights::seal() {
  nlohmann::json header = {{"__metadata__", header_.metadata}};
  for (const auto& [name, tensor] : header_.tensors) {
    header[name] = {
        {"dtype", tensor.dtype_name}, {"shape", tensor.shape}, {"data_offsets", {tensor.begin, tensor.end}}};
  }
  std::string head(8, '\0');
  const uint64_t length = data_begin_ - 8;
  for (size_t i = 0; i < 8; ++i) head[i] = static_cast<char>(length >> (8 * i));
  head += header.dump();
  if (head.size() > data_begin_) return fail("resident weights: a header of {} bytes finds no room", head.size());
  head.resize(data_begin_, ' ');
  if (auto ok = memory_.write(0, {reinterpret_cast<const uint8_t*>(head.data()), head.size()}); !ok) {
    return tl::unexpected(ok.error());
  }
  if (auto ok = memory_.seal(); !ok) return tl::unexpected(ok.error());
  memory_.use_large_pages();  // small ones do where there are no others
  return std::move(memory_);
}

Result<RankWeights> attach_weights(std::shared_ptr<const ResidentMemory> memory, const ShardPlan& plan, int rank,
                                   const std::string& origin) {
  const auto header = parse_safetensors(memory->bytes(), "resident weights");
  if (!header) return tl::unexpected(header.error());
  for (const auto& [key, value] : metadata(rank, plan.size(), origin)) {
    const auto found = header->metadata.find(key);
    const std::string has = found == header->metadata.end() ? "nothing" : found->second;
    if (has != value) return fail("resident weights: their {} is {}, not {}", key, has, value);
  }
  auto weights = ImageReader(*header, memory->bytes().subspan(header->data_begin), plan, rank).weights();
  if (!weights) return weights;
  weights->bytes = bytes_of(*weights, plan.config().tie_word_embeddings);
  weights->memory = std::move(memory);
  return weights;
}

}  // namespace lorikeet::model
