#include "model/forward/cuda_adapters.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

#include "kernels/base/borrowed_buffer.h"
#include "kernels/int4/dora_norms_cuda.h"
#include "kernels/peer/memory_digest_cuda.h"
#include "kernels/peer/peer_memory.h"

namespace lorikeet::model {
namespace {

constexpr int32_t kUsualRank = 64;        // memory is reserved for adapters of this rank, unless the options say more
constexpr uint64_t kMostOfTheDevice = 8;  // and for no more than an eighth of the device

kernels::LoraGeometry geometry_of(const ShardPlan& plan, int rank, const CudaModelOptions& options) {
  const ModelConfig& config = plan.config();
  kernels::LoraGeometry geometry;
  geometry.layers = config.num_layers;
  for (const Projection p : kProjections) {
    geometry.inputs[static_cast<size_t>(p)] = plan.inputs(p, rank).size();
    geometry.outputs[static_cast<size_t>(p)] = plan.outputs(p, rank).size();
  }
  geometry.hidden = config.hidden_size;
  geometry.vocab = config.vocab_size;
  geometry.lm_head_outputs = plan.shard(rank).vocab.size();
  geometry.max_rank = options.max_lora_rank;
  geometry.dtype = options.dtype;
  return geometry;
}

kernels::StoredLora weights_of(const std::optional<LoraPair>& pair) {
  kernels::StoredLora weights;
  if (!pair) return weights;
  weights.a = pair->a.data();
  weights.b = pair->b.data();
  weights.a_dtype = pair->a.dtype();
  weights.b_dtype = pair->b.dtype();
  weights.dora_factor = pair->dora_factor.empty() ? nullptr : pair->dora_factor.data();
  weights.rank = pair->rank;
  weights.inputs = pair->inputs;
  weights.outputs = pair->outputs;
  weights.scale = pair->scale;
  return weights;
}

}  // namespace

uint64_t CudaAdapters::memory_bytes(const ShardPlan& plan, int rank, const CudaModelOptions& options) {
  if (options.lora_bytes > 0) return options.lora_bytes;
  const kernels::LoraGeometry geometry = geometry_of(plan, rank, options);
  const uint64_t usual = kernels::LoraSlots::adapter_bytes(geometry, std::min(options.max_lora_rank, kUsualRank));
  const uint64_t all = static_cast<uint64_t>(options.num_slots) * usual;
  return std::min(all + all / kLoraSlackShare, kernels::device_memory().total_bytes / kMostOfTheDevice);
}

Result<std::unique_ptr<CudaAdapters>> CudaAdapters::make(const ShardPlan& plan, int rank,
                                                         const CudaModelOptions& options,
                                                         const DeviceWeights& weights) {
  const kernels::LoraGeometry geometry = geometry_of(plan, rank, options);
  const uint64_t bytes = memory_bytes(plan, rank, options);
  kernels::DeviceBuffer memory;
  if (const auto& outliving = options.adapter_memory.memory) {
    memory = kernels::borrowed_buffer(outliving->data(), bytes, outliving);
  }
  auto slots = kernels::LoraSlots::make(geometry, options.num_slots, bytes, std::move(memory));
  if (!slots) return tl::unexpected(slots.error());
  std::unique_ptr<CudaAdapters> adapters(new CudaAdapters(options, weights, *std::move(slots)));
  auto stream = kernels::Stream::make();
  if (!stream) return tl::unexpected(stream.error());
  adapters->stream_ = *std::move(stream);
  auto digest_stream = kernels::Stream::make(/*urgent=*/true);
  if (!digest_stream) return tl::unexpected(digest_stream.error());
  adapters->digest_stream_ = *std::move(digest_stream);

  int32_t inputs = 0;
  int32_t outputs = 0;
  uint64_t scratch = 0;
  for (const DeviceLayer& layer : weights.layers) {
    for (const DeviceLinear* linear : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) {
      inputs = std::max(inputs, linear->inputs);
      outputs = std::max(outputs, *std::max_element(linear->outputs.begin(), linear->outputs.end()));
      for (const DeviceProduct& product : linear->products) {
        const auto* packed = std::get_if<kernels::PackedInt4Weight>(&product.weight);
        if (packed != nullptr) scratch = std::max(scratch, kernels::dora_scratch_bytes(packed->k));
      }
    }
  }
  const auto allocate = [](kernels::DeviceBuffer& buffer, uint64_t size) -> Result<void> {
    auto made = kernels::DeviceBuffer::allocate(size, "the norms of DoRA adapters");
    if (!made) return tl::unexpected(made.error());
    buffer = *std::move(made);
    return {};
  };
  const uint64_t pair_floats = static_cast<uint64_t>(options.max_lora_rank) * static_cast<uint64_t>(inputs + outputs);
  Result<void> ok = allocate(adapters->scratch_, scratch);
  if (ok) ok = allocate(adapters->pair_, pair_floats * sizeof(float));
  if (ok) ok = allocate(adapters->norms_, static_cast<uint64_t>(outputs) * sizeof(float));
  if (ok) ok = allocate(adapters->digest_, sizeof(uint64_t));
  if (!ok) return tl::unexpected(ok.error());
  auto digest = kernels::PinnedBuffer::allocate(sizeof(uint64_t), "digests of adapters");
  if (!digest) return tl::unexpected(digest.error());
  adapters->digest_on_host_ = *std::move(digest);
  auto digested = kernels::PolledEvent::make();
  if (!digested) return tl::unexpected(digested.error());
  adapters->digested_ = *std::move(digested);
  adapters->left_.resize(static_cast<size_t>(options.num_slots));
  if (adapters->records_) {
    adapters->load_digest();
    adapters->take_over(geometry);
  }
  return adapters;
}

// The driver loads a kernel's code when the kernel is first launched: now, and not beside the steps of others.
void CudaAdapters::load_digest() {
  const kernels::DevicePart nothing{digest_.data(), sizeof(uint64_t)};
  kernels::memory_digest_cuda({&nothing, 1}, digest_.as<uint64_t>(), digest_stream_);
  digest_stream_.synchronize();
}

// What a slot is said to hold and does not is no error: it will be sent.
void CudaAdapters::take_over(const kernels::LoraGeometry& geometry) {
  for (int32_t slot = 0; slot < slots_.slots(); ++slot) {
    const auto found = records_->read(slot);
    if (!found) continue;
    if (auto ok = take_over(slot, *found, geometry); !ok) {
      LOG(WARNING) << "adapter slot " << slot << " is left empty: " << ok.error().message;
      clear(slot);
    } else {
      left_[static_cast<size_t>(slot)] = found->digest;
    }
  }
}

Result<void> CudaAdapters::take_over(int32_t slot, const SlotRecord& record, const kernels::LoraGeometry& geometry) {
  std::vector<kernels::HeldLora> pairs;
  for (size_t i = 0; i + 2 < record.places.size(); ++i) {
    const size_t p = i % kNumProjections;
    pairs.push_back({record.places[i].rank, geometry.inputs[p], geometry.outputs[p], record.places[i].scale});
  }
  const auto& lm_head = record.places[pairs.size()];
  const auto& embedding = record.places[pairs.size() + 1];
  kernels::HeldLoraAdapter adapter;
  adapter.pairs = pairs;
  adapter.lm_head = {lm_head.rank, geometry.hidden, geometry.lm_head_outputs, lm_head.scale};
  adapter.embedding = {embedding.rank, geometry.vocab, geometry.hidden, embedding.scale};
  if (auto ok = slots_.adopt(slot, adapter, record.spans); !ok) return ok;
  const auto found = contents(slot);
  if (!found) return tl::unexpected(found.error());
  if (*found != record.contents) return fail("adapter {} is not what was left there", record.digest);
  return {};
}

void CudaAdapters::record(int32_t slot, const AdapterSlice& slice) {
  if (!records_) return;
  const auto found = contents(slot);
  if (!found) {
    LOG(WARNING) << "adapter slot " << slot << " will not be left to a successor: " << found.error().message;
    return;
  }
  SlotRecord written;
  written.digest = slice.digest;
  written.contents = *found;
  for (const SlicePair& pair : slice.places) written.places.push_back({pair.rank, pair.scale});
  const auto spans = slots_.spans(slot);
  written.spans.assign(spans.begin(), spans.end());
  records_->write(slot, written);
}

Result<uint64_t> CudaAdapters::contents(int32_t slot) {
  std::vector<kernels::ByteSpan> spans;  // those that lie behind each other are one
  for (const kernels::ByteSpan& span : slots_.spans(slot)) {
    if (!spans.empty() && spans.back().offset + spans.back().bytes == span.offset) {
      spans.back().bytes += span.bytes;
    } else {
      spans.push_back(span);
    }
  }
  std::vector<kernels::DevicePart> parts;
  for (const kernels::ByteSpan& span : spans) {
    parts.push_back({slots_.memory().as<unsigned char>() + span.offset, span.bytes});
  }
  kernels::memory_digest_cuda(parts, digest_.as<uint64_t>(), digest_stream_);
  kernels::copy_to_host(digest_on_host_.data(), digest_.data(), sizeof(uint64_t), digest_stream_);
  digested_.record(digest_stream_);
  if (auto ok = digested_.wait(); !ok) return tl::unexpected(ok.error());
  return *digest_on_host_.as<uint64_t>();
}

void CudaAdapters::clear(int32_t slot) {
  if (records_) records_->clear(slot);
  slots_.clear(slot);
}

Result<void> CudaAdapters::set(int32_t slot, const Adapter& part) {
  if (slot < 0 || slot >= slots_.slots()) {
    return fail("adapter {} was sent to slot {}, but there are {}", part.digest, slot, slots_.slots());
  }
  if (records_) records_->clear(slot);
  std::vector<kernels::StoredLora> pairs;
  for (const LoraLayer& layer : part.layers) {
    for (const auto& pair : layer) {
      if (pair && pair->magnitude.size() != pair->dora_factor.size()) {
        return fail("adapter {} is a DoRA and has no factors yet", part.digest);
      }
      pairs.push_back(weights_of(pair));
    }
  }
  return slots_.load(slot, kernels::LoraAdapter{pairs, weights_of(part.embedding), weights_of(part.lm_head)});
}

Result<void> CudaAdapters::set(int32_t slot, const AdapterSlice& slice, const SliceBytes& bytes) {
  if (slot < 0 || slot >= slots_.slots()) {
    return fail("adapter {} was sent to slot {}, but there are {}", slice.digest, slot, slots_.slots());
  }
  if (records_) records_->clear(slot);
  std::vector<kernels::PackedLora> places;
  for (const SlicePair& pair : slice.places) {
    places.push_back({bytes.data + pair.a, bytes.data + pair.b, pair.rank, pair.inputs, pair.outputs, pair.scale});
  }
  const size_t outer = places.size() - 2;  // lm_head and the embedding are last
  return slots_.load(
      slot, kernels::PackedLoraAdapter{{places.data(), outer}, places[outer + 1], places[outer], bytes.memory});
}

std::vector<std::vector<float>> CudaAdapters::squared_norms(const Adapter& part) {
  std::vector<std::vector<float>> norms;
  for (size_t layer = 0; layer < part.layers.size(); ++layer) {
    for (const Projection p : kProjections) {
      const auto& pair = part.layers[layer][static_cast<size_t>(p)];
      if (!pair) continue;
      norms.emplace_back();
      if (!pair->magnitude.empty()) norms.back() = squared_norms(*pair, static_cast<int32_t>(layer), p);
    }
  }
  return norms;
}

std::vector<float> CudaAdapters::squared_norms(const LoraPair& pair, int32_t layer, Projection p) {
  const uint64_t a_bytes = pair.a.size() * sizeof(float);
  const uint64_t b_bytes = pair.b.size() * sizeof(float);
  std::vector<float> norms(static_cast<size_t>(pair.outputs));
  // A rank above the largest that is served: set refuses the adapter, and nothing is made of these.
  if (a_bytes + b_bytes > pair_.bytes()) return norms;
  kernels::DoraPair device;
  device.a = pair_.as<float>();
  device.b = pair_.as<float>() + pair.a.size();
  device.rank = pair.rank;
  device.inputs = pair.inputs;
  device.outputs = pair.outputs;
  device.scale = pair.scale;
  const std::vector<float> a = pair.a.floats(), b = pair.b.floats();
  kernels::copy_to_device(pair_.data(), a.data(), a_bytes, stream_);
  kernels::copy_to_device(pair_.as<float>() + a.size(), b.data(), b_bytes, stream_);

  const DeviceLinear& linear = weights_.layers[static_cast<size_t>(layer)].of(p);
  int32_t first = 0;  // of the projection's outputs among the linear's
  const Projection of_linear = p == Projection::k || p == Projection::v ? Projection::q
                               : p == Projection::up                    ? Projection::gate
                                                                        : p;
  for (int32_t i = 0; i < static_cast<int32_t>(p) - static_cast<int32_t>(of_linear); ++i) {
    first += linear.outputs[static_cast<size_t>(i)];
  }
  const auto product = std::find_if(linear.products.rbegin(), linear.products.rend(),
                                    [&](const DeviceProduct& candidate) { return candidate.first_output <= first; });
  CHECK(product != linear.products.rend());
  first -= product->first_output;
  if (const auto* packed = std::get_if<kernels::PackedInt4Weight>(&product->weight)) {
    kernels::dora_norms_cuda(*packed, first, device, scratch_.data(), norms_.as<float>(), stream_);
  } else {
    kernels::dora_norms_cuda(std::get<DeviceDense>(product->weight).data.data(), dtype_, first, device,
                             norms_.as<float>(), stream_);
  }
  kernels::copy_to_host(norms.data(), norms_.data(), norms.size() * sizeof(float), stream_);
  stream_.synchronize();
  return norms;
}

}  // namespace lorikeet::model
