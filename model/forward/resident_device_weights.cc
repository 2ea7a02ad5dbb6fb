#include "model/forward/resident_device_weights.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "kernels/base/borrowed_buffer.h"
#include "kernels/base/rounding.h"
#include "kernels/peer/memory_digest_cuda.h"
#include "kernels/peer/peer_memory.h"
#include "model/checkpoint/safetensors.h"

namespace lorikeet::model {
namespace {

using kernels::DeviceBuffer;
using kernels::PackedInt4Weight;
using kernels::PeerMemory;

constexpr std::string_view kLayout = "lorikeet-cuda-weights-1";
constexpr uint64_t kRegionBytes = 1ULL << 30;
constexpr uint64_t kMostRegions = 48;
constexpr uint64_t kAlignment = 256;
constexpr int64_t kMostParts = 1 << 16;  // layers, products, outputs of any one thing

// Walks over all that weights consist of, always in the same order: `visit` takes numbers, sizes of lists, kinds of
// products, and buffers.
template <class Visit>
void walk(DeviceLinear& linear, Visit& visit) {
  visit.number(linear.inputs);
  visit.list(linear.outputs);
  for (int32_t& outputs : linear.outputs) visit.number(outputs);
  visit.list(linear.products);
  for (DeviceProduct& product : linear.products) {
    visit.number(product.first_output);
    if (visit.is_dense(product)) {
      auto& dense = std::get<DeviceDense>(product.weight);
      visit.number(dense.n);
      visit.number(dense.k);
      visit.buffer(dense.data);
      continue;
    }
    auto& packed = std::get<PackedInt4Weight>(product.weight);
    for (int32_t* number : {&packed.n, &packed.k, &packed.x_size, &packed.tiles, &packed.units, &packed.scale_block}) {
      visit.number(*number);
    }
    visit.flag(packed.paired);
    visit.flag(packed.asymmetric);
    auto factor = std::bit_cast<int32_t>(packed.scale_factor);
    visit.number(factor);
    packed.scale_factor = std::bit_cast<float>(factor);
    visit.buffer(packed.data);
    visit.buffer(packed.permutation);
  }
}

template <class Visit>
void walk(DeviceWeights& weights, Visit& visit) {
  for (DeviceBuffer* buffer : {&weights.embedding, &weights.lm_head_memory, &weights.final_norm}) visit.buffer(*buffer);
  visit.list(weights.layers);
  for (DeviceLayer& layer : weights.layers) {
    for (DeviceBuffer* buffer :
         {&layer.input_norm, &layer.post_attention_norm, &layer.q_norm, &layer.k_norm, &layer.qkv_bias}) {
      visit.buffer(*buffer);
    }
    for (DeviceLinear* linear : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) walk(*linear, visit);
  }
}

// Where lm_head is, once the buffers are in their places.
void place_lm_head(DeviceWeights& weights, const ShardPlan& plan, int rank, kernels::Dtype dtype) {
  const ModelConfig& config = plan.config();
  const uint64_t row = static_cast<uint64_t>(config.hidden_size) * kernels::size_of(dtype);
  weights.lm_head = config.tie_word_embeddings ? weights.embedding.as<unsigned char>() +
                                                     static_cast<uint64_t>(plan.shard(rank).vocab.begin) * row
                                               : weights.lm_head_memory.as<unsigned char>();
}

struct Place {
  uint64_t region = 0, offset = 0;
};

// Collects the buffers.
struct Buffers {
  template <class T>
  void number(T&) {}
  void flag(bool&) {}
  template <class T>
  void list(std::vector<T>&) {}
  bool is_dense(DeviceProduct& product) { return std::holds_alternative<DeviceDense>(product.weight); }
  void buffer(DeviceBuffer& buffer) {
    if (buffer.bytes() > 0) all.push_back(&buffer);
  }
  std::vector<DeviceBuffer*> all;
};

// Writes everything down as numbers.
struct Writer {
  void number(int32_t& value) { numbers.push_back(value); }
  void flag(bool& value) { numbers.push_back(value ? 1 : 0); }
  template <class T>
  void list(std::vector<T>& values) {
    numbers.push_back(static_cast<int64_t>(values.size()));
  }
  bool is_dense(DeviceProduct& product) {
    const bool dense = std::holds_alternative<DeviceDense>(product.weight);
    numbers.push_back(dense ? 1 : 0);
    return dense;
  }
  void buffer(DeviceBuffer& buffer) {
    const Place place = buffer.bytes() > 0 ? places.at(&buffer) : Place{};
    for (const uint64_t value : {buffer.bytes(), place.region, place.offset}) {
      numbers.push_back(static_cast<int64_t>(value));
    }
  }
  const std::map<const DeviceBuffer*, Place>& places;
  std::vector<int64_t> numbers;
};

// Makes weights of numbers and regions. What cannot be right sets `wrong`, and nothing is made any more.
struct Reader {
  int64_t next() {
    if (at == numbers.size()) wrong = true;
    return wrong ? 0 : numbers[at++];
  }
  void number(int32_t& value) {
    const int64_t read = next();
    wrong |= read < INT32_MIN || read > INT32_MAX;
    value = static_cast<int32_t>(read);
  }
  void flag(bool& value) { value = next() != 0; }
  template <class T>
  void list(std::vector<T>& values) {
    const int64_t size = next();
    wrong |= size < 0 || size > kMostParts;
    if (!wrong) values.resize(static_cast<size_t>(size));
  }
  bool is_dense(DeviceProduct& product) {
    const bool dense = next() != 0;
    if (dense) product.weight = DeviceDense();
    return dense;
  }
  void buffer(DeviceBuffer& buffer) {
    const auto bytes = static_cast<uint64_t>(next()), region = static_cast<uint64_t>(next()),
               offset = static_cast<uint64_t>(next());
    if (wrong || bytes == 0) return;
    if (region >= regions.size() || offset % kAlignment != 0 || offset > sizes[region] ||
        bytes > sizes[region] - offset) {
      wrong = true;
      return;
    }
    if (!begun.emplace(region, offset).second) {  // of two buffers at one place none can be right
      wrong = true;
      return;
    }
    buffer = kernels::borrowed_buffer(regions[region]->data() + offset, bytes, regions[region]);
  }
  const std::vector<int64_t>& numbers;
  const std::vector<std::shared_ptr<PeerMemory>>& regions;
  const std::vector<uint64_t>& sizes;
  size_t at = 0;
  bool wrong = false;
  std::set<std::pair<uint64_t, uint64_t>> begun = {};  // places of buffers
};

using Metadata = std::map<std::string, std::string, std::less<>>;

Result<Metadata> metadata(const ShardPlan& plan, int rank, kernels::Dtype dtype, const std::string& origin) {
  const auto device = kernels::device_bus_address();
  if (!device) return tl::unexpected(device.error());
  return Metadata{{"layout", std::string(kLayout)},
                  {"origin", origin},
                  {"rank", std::to_string(rank)},
                  {"ranks", std::to_string(plan.size())},
                  {"dtype", std::string(kernels::name_of(dtype))},
                  {"device", *device}};
}

Result<kernels::ResidentMemory> write_contents(const Metadata& metadata, const std::vector<int64_t>& numbers) {
  const uint64_t size = numbers.size() * sizeof(int64_t);
  const nlohmann::json header = {
      {"__metadata__", metadata},
      {"numbers", {{"dtype", "I64"}, {"shape", {numbers.size()}}, {"data_offsets", {0, size}}}}};
  const std::string text = header.dump();
  std::vector<uint8_t> image(8);
  for (size_t i = 0; i < 8; ++i) image[i] = static_cast<uint8_t>(text.size() >> (8 * i));
  image.insert(image.end(), text.begin(), text.end());
  const auto* data = reinterpret_cast<const uint8_t*>(numbers.data());
  image.insert(image.end(), data, data + size);
  auto memory = kernels::ResidentMemory::make("lorikeet-device-weights");
  if (!memory) return memory;
  if (auto ok = memory->write(0, image); !ok) return tl::unexpected(ok.error());
  if (auto ok = memory->seal(); !ok) return tl::unexpected(ok.error());
  return memory;
}

Result<std::vector<int64_t>> read_contents(const kernels::ResidentMemory& contents, const Metadata& wanted) {
  const auto header = parse_safetensors(contents.bytes(), "resident weights");
  if (!header) return tl::unexpected(header.error());
  for (const auto& [key, value] : wanted) {
    const auto found = header->metadata.find(key);
    const std::string has = found == header->metadata.end() ? "nothing" : found->second;
    if (has != value) return fail("resident weights: their {} is {}, not {}", key, has, value);
  }
  const auto entry = header->tensors.find("numbers");
  if (entry == header->tensors.end() || entry->second.dtype_name != "I64") {
    return fail("resident weights: there is no list of what they are");
  }
  std::vector<int64_t> numbers((entry->second.end - entry->second.begin) / sizeof(int64_t));
  std::memcpy(numbers.data(), contents.bytes().data() + header->data_begin + entry->second.begin,
              numbers.size() * sizeof(int64_t));
  return numbers;
}

}  // namespace

Result<ResidentDeviceWeights> make_resident(DeviceWeights& weights, const ShardPlan& plan, int rank,
                                            kernels::Dtype dtype, const std::string& origin) {
  const auto what = metadata(plan, rank, dtype, origin);
  if (!what) return tl::unexpected(what.error());
  const auto stream = kernels::Stream::make();
  if (!stream) return tl::unexpected(stream.error());
  Buffers buffers;
  walk(weights, buffers);
  uint64_t all_bytes = 0;
  for (const DeviceBuffer* buffer : buffers.all) all_bytes += kernels::round_up<uint64_t>(buffer->bytes(), kAlignment);
  // A region ends before the buffer that does not fit, so only two that follow each other are full together.
  const uint64_t region_bytes = std::max(kRegionBytes, all_bytes / (kMostRegions / 2));

  ResidentDeviceWeights resident;
  std::map<const DeviceBuffer*, Place> places;
  std::vector<int64_t> digests;
  for (size_t begin = 0, end = 0; begin < buffers.all.size(); begin = end) {
    uint64_t bytes = 0;
    for (; end < buffers.all.size(); ++end) {
      const uint64_t size = kernels::round_up<uint64_t>(buffers.all[end]->bytes(), kAlignment);
      if (bytes > 0 && bytes + size > region_bytes) break;
      places[buffers.all[end]] = {resident.regions.size(), bytes};
      bytes += size;
    }
    auto made = PeerMemory::make(bytes);
    if (!made) return tl::unexpected(made.error());
    auto descriptor = made->share();
    if (!descriptor) return tl::unexpected(descriptor.error());
    const auto region = std::make_shared<PeerMemory>(*std::move(made));
    std::vector<DeviceBuffer> moved;
    for (size_t i = begin; i < end; ++i) {
      unsigned char* to = region->data() + places[buffers.all[i]].offset;
      kernels::copy_on_device(to, buffers.all[i]->data(), buffers.all[i]->bytes(), *stream);
      moved.push_back(kernels::borrowed_buffer(to, buffers.all[i]->bytes(), region));
    }
    const auto digest = kernels::memory_digest_cuda(region->data(), bytes, *stream);
    if (!digest) return tl::unexpected(digest.error());
    for (size_t i = begin; i < end; ++i) *buffers.all[i] = std::move(moved[i - begin]);
    place_lm_head(weights, plan, rank, dtype);
    resident.regions.push_back({*std::move(descriptor), bytes});
    digests.push_back(static_cast<int64_t>(*digest));
  }

  Writer writer{places, {static_cast<int64_t>(resident.regions.size())}};
  for (size_t i = 0; i < resident.regions.size(); ++i) {
    writer.numbers.push_back(static_cast<int64_t>(resident.regions[i].bytes));
    writer.numbers.push_back(digests[i]);
  }
  walk(weights, writer);
  auto contents = write_contents(*what, writer.numbers);
  if (!contents) return tl::unexpected(contents.error());
  resident.contents = *std::move(contents);
  return resident;
}

Result<DeviceWeights> attach_device_weights(const kernels::ResidentMemory& contents,
                                            const std::vector<Descriptor>& regions, const ShardPlan& plan, int rank,
                                            kernels::Dtype dtype, const std::string& origin) {
  const auto wanted = metadata(plan, rank, dtype, origin);
  if (!wanted) return tl::unexpected(wanted.error());
  const auto numbers = read_contents(contents, *wanted);
  if (!numbers) return tl::unexpected(numbers.error());
  const auto stream = kernels::Stream::make();
  if (!stream) return tl::unexpected(stream.error());
  std::vector<std::shared_ptr<PeerMemory>> mapped;
  std::vector<uint64_t> sizes;
  Reader reader{*numbers, mapped, sizes};
  if (const auto count = static_cast<uint64_t>(reader.next()); count != regions.size()) {
    return fail("resident weights: {} regions of memory were left, not {}", regions.size(), count);
  }
  for (const Descriptor& region : regions) {
    const auto bytes = static_cast<uint64_t>(reader.next()), digest = static_cast<uint64_t>(reader.next());
    if (reader.wrong || bytes == 0 || bytes % sizeof(uint64_t) != 0) return fail("resident weights: a region's size");
    auto memory = PeerMemory::attach(region, bytes);
    if (!memory) return tl::unexpected(memory.error());
    const auto found = kernels::memory_digest_cuda(memory->data(), bytes, *stream);
    if (!found) return tl::unexpected(found.error());
    if (*found != digest) return fail("resident weights: what a region of {} bytes holds has changed", bytes);
    mapped.push_back(std::make_shared<PeerMemory>(*std::move(memory)));
    sizes.push_back(bytes);
  }
  DeviceWeights weights;
  walk(weights, reader);
  if (reader.wrong || reader.at != numbers->size() ||
      weights.layers.size() != static_cast<size_t>(plan.config().num_layers)) {
    return fail("resident weights: the list of what they are cannot be right");
  }
  place_lm_head(weights, plan, rank, dtype);
  return weights;
}

}  // namespace lorikeet::model
