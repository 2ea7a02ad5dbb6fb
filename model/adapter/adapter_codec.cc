// encode_adapter and decode_adapter: one rank's part as a safetensors image.
#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <deque>
#include <utility>

#include "model/adapter/adapter.h"
#include "model/checkpoint/safetensors.h"

namespace lorikeet::model {
namespace {

using kernels::Dtype;

constexpr std::string_view kFormat = "lorikeet-adapter-1";
constexpr std::array<std::string_view, kNumProjections> kNames = {"q", "k", "v", "o", "gate", "up", "down"};

// Calls visit(name, pair) for every pair that there is.
template <class AdapterType, class Visit>
void for_each_pair(AdapterType& adapter, Visit visit) {
  for (size_t layer = 0; layer < adapter.layers.size(); ++layer) {
    for (size_t p = 0; p < kNumProjections; ++p) {
      if (adapter.layers[layer][p]) visit(fmt::format("{}.{}", layer, kNames[p]), *adapter.layers[layer][p]);
    }
  }
  if (adapter.embedding) visit("embedding", *adapter.embedding);
  if (adapter.lm_head) visit("lm_head", *adapter.lm_head);
}

Result<StoredFloats> read_floats(const TensorEntry& entry, std::span<const uint8_t> data, std::string_view name) {
  if (entry.dtype != Dtype::f32 && entry.dtype != Dtype::f16 && entry.dtype != Dtype::bf16) {
    return fail("adapter part: {} is {}", name, entry.dtype_name);
  }
  StoredFloats values(*entry.dtype, data.subspan(entry.begin, entry.end - entry.begin));
  if (const auto i = values.first_not_finite()) return fail("adapter part: element {} of {} is not finite", *i, name);
  return values;
}

class Decoder {
 public:
  Decoder(const SafetensorsHeader& header, std::span<const uint8_t> data) : header_(header), data_(data) {}

  // The pair of that name, if it is there, of the shape that the plan gives.
  Result<std::optional<LoraPair>> pair(const std::string& name, int32_t outputs, int32_t inputs) {
    const auto a = header_.tensors.find(name + ".a"), b = header_.tensors.find(name + ".b");
    const bool has_a = a != header_.tensors.end(), has_b = b != header_.tensors.end();
    if (!has_a && !has_b) return std::optional<LoraPair>();
    if (!has_a || !has_b) return fail("adapter part: {} has A or B, not both", name);
    const auto& shape = a->second.shape;
    if (shape.size() != 2 || shape[0] < 1 || shape[0] > INT32_MAX || shape[1] != inputs) {
      return fail("adapter part: A of {} has shape {}, expected [rank, {}]", name, shape_text(shape), inputs);
    }
    if (b->second.shape != std::vector<int64_t>{outputs, shape[0]}) {
      return fail("adapter part: B of {} has shape {}, expected [{}, {}]", name, shape_text(b->second.shape), outputs,
                  shape[0]);
    }
    LoraPair pair;
    pair.rank = static_cast<int32_t>(shape[0]);
    pair.inputs = inputs;
    pair.outputs = outputs;
    if (auto ok = read_scale(name, pair.scale); !ok) return tl::unexpected(ok.error());
    if (auto ok = read(name + ".a", pair.a); !ok) return tl::unexpected(ok.error());
    if (auto ok = read(name + ".b", pair.b); !ok) return tl::unexpected(ok.error());
    if (auto ok = read_optional(name + ".magnitude", outputs, pair.magnitude); !ok) return tl::unexpected(ok.error());
    if (auto ok = read_optional(name + ".factor", outputs, pair.dora_factor); !ok) return tl::unexpected(ok.error());
    return std::optional<LoraPair>(std::move(pair));
  }

  size_t tensors_read() const { return read_; }

 private:
  Result<void> read(const std::string& name, StoredFloats& into) {
    auto values = read_floats(header_.tensors.find(name)->second, data_, name);
    if (!values) return tl::unexpected(values.error());
    into = std::move(*values);
    ++read_;
    return {};
  }

  Result<void> read_optional(const std::string& name, int32_t size, std::vector<float>& into) {
    const auto it = header_.tensors.find(name);
    if (it == header_.tensors.end()) return {};
    if (it->second.shape != std::vector<int64_t>{size}) {
      return fail("adapter part: {} has shape {}, expected [{}]", name, shape_text(it->second.shape), size);
    }
    StoredFloats values;
    if (auto ok = read(name, values); !ok) return ok;
    into = values.floats();
    return {};
  }

  // Eight hex digits: the float's bits.
  Result<void> read_scale(const std::string& name, float& scale) const {
    const auto it = header_.metadata.find(name + ".scale");
    uint32_t bits = 0;
    if (it == header_.metadata.end() || it->second.size() != 8) return fail("adapter part: no scale of {}", name);
    const char* end = it->second.data() + 8;
    const auto [rest, error] = std::from_chars(it->second.data(), end, bits, 16);
    scale = std::bit_cast<float>(bits);
    if (error != std::errc() || rest != end || !std::isfinite(scale)) {
      return fail("adapter part: the scale of {} is not a number", name);
    }
    return {};
  }

  const SafetensorsHeader& header_;
  std::span<const uint8_t> data_;
  size_t read_ = 0;
};

bool is_digest(const std::string& text) {
  return text.size() == 32 &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

}  // namespace

std::vector<uint8_t> encode_adapter(const Adapter& part) {
  std::string metadata =
      fmt::format(R"("format":"{}","digest":"{}","layers":"{}")", kFormat, part.digest, part.layers.size());
  std::string entries;
  // Adapters come from 16-bit files more often than not, and travel at that size.
  std::deque<StoredFloats> made_smaller;  // stay in place
  std::vector<const StoredFloats*> items;
  uint64_t offset = 0;
  const auto add = [&](const std::string& name, const StoredFloats& values, const std::string& shape) {
    if (values.empty()) return;
    items.push_back(values.dtype() == Dtype::f32 ? &made_smaller.emplace_back(values.smallest()) : &values);
    const uint64_t end = offset + items.back()->bytes().size();
    entries += fmt::format(R"(,"{}":{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})", name,
                           kernels::name_of(items.back()->dtype()), shape, offset, end);
    offset = end;
  };
  for_each_pair(part, [&](const std::string& name, const LoraPair& pair) {
    metadata += fmt::format(R"(,"{}.scale":"{:08x}")", name, std::bit_cast<uint32_t>(pair.scale));
    add(name + ".a", pair.a, fmt::format("[{},{}]", pair.rank, pair.inputs));
    add(name + ".b", pair.b, fmt::format("[{},{}]", pair.outputs, pair.rank));
    add(name + ".magnitude", pair.magnitude, fmt::format("[{}]", pair.outputs));
    add(name + ".factor", pair.dora_factor, fmt::format("[{}]", pair.outputs));
  });
  std::string header = fmt::format(R"({{"__metadata__":{{{}}}{}}})", metadata, entries);
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::vector<uint8_t> image;
  image.reserve(8 + header.size() + offset);
  for (int i = 0; i < 8; ++i) image.push_back(static_cast<uint8_t>(header.size() >> (8 * i)));
  image.insert(image.end(), header.begin(), header.end());
  for (const StoredFloats* item : items) image.insert(image.end(), item->bytes().begin(), item->bytes().end());
  return image;
}

Result<Adapter> decode_adapter(std::span<const uint8_t> bytes, const ShardPlan& plan, int rank) {
  auto header = parse_safetensors(bytes, "adapter part");
  if (!header) return tl::unexpected(header.error());
  const auto value = [&](std::string_view key) {
    const auto it = header->metadata.find(key);
    return it == header->metadata.end() ? std::string() : it->second;
  };
  const ModelConfig& config = plan.config();
  if (value("format") != kFormat) return fail("adapter part: not of format {}", kFormat);
  Adapter part;
  part.digest = value("digest");
  if (!is_digest(part.digest)) return fail("adapter part: its digest is not 32 hex digits");
  if (value("layers") != std::to_string(config.num_layers)) {
    return fail("adapter part: for a base of {} layers, this one has {}", value("layers"), config.num_layers);
  }
  Decoder decoder(*header, bytes.subspan(header->data_begin));
  part.layers.resize(static_cast<size_t>(config.num_layers));
  for (size_t layer = 0; layer < part.layers.size(); ++layer) {
    for (const Projection p : kProjections) {
      const auto index = static_cast<size_t>(p);
      auto pair = decoder.pair(fmt::format("{}.{}", layer, kNames[index]), plan.outputs(p, rank).size(),
                               plan.inputs(p, rank).size());
      if (!pair) return tl::unexpected(pair.error());
      part.layers[layer][index] = std::move(*pair);
    }
  }
  auto embedding = decoder.pair("embedding", config.hidden_size, config.vocab_size);
  auto head = decoder.pair("lm_head", plan.shard(rank).vocab.size(), config.hidden_size);
  if (!embedding) return tl::unexpected(embedding.error());
  if (!head) return tl::unexpected(head.error());
  part.embedding = std::move(*embedding);
  part.lm_head = std::move(*head);
  if (decoder.tensors_read() != header->tensors.size()) {
    return fail("adapter part: {} tensors, {} of them have a place", header->tensors.size(), decoder.tensors_read());
  }
  part.count_bytes();
  return part;
}

}  // namespace lorikeet::model
