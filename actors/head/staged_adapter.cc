#include "actors/head/staged_adapter.h"

#include <fmt/format.h>
#include <glog/logging.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <mutex>
#include <new>
#include <utility>

#include "actors/wire/limits.h"
#include "kernels/base/rounding.h"
#include "model/checkpoint/in_parallel.h"

namespace lorikeet::actors {
namespace {

// Numbers are given from the lowest on, so that no more than this part of the head's descriptors is ever adapters'.
bool leaves_descriptors(const Descriptor& made) {
  rlimit limit{};
  return getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
         static_cast<rlim_t>(made.get()) < limit.rlim_cur / kDescriptorsPerStagedAdapter;
}

// The magnitudes of one rank's part, per pair.
void add_magnitudes(const model::Adapter& part, size_t rank, size_t ranks, std::vector<StagedAdapter::DoraPair>& to) {
  size_t pair = 0;
  for (size_t layer = 0; layer < part.layers.size(); ++layer) {
    for (const model::Projection projection : model::kProjections) {
      const auto& lora = part.layers[layer][static_cast<size_t>(projection)];
      if (!lora) continue;
      if (rank == 0) {
        to.push_back({model::is_row_parallel(projection), std::vector<std::vector<float>>(ranks),
                      fmt::format("layer {}, {}", layer, model::module_name_of(projection))});
      }
      to[pair++].magnitude[rank] = lora->magnitude;
    }
  }
}

// Memory for the slices of all ranks while they are written.
class SliceMemory {
 public:
  SliceMemory(const std::vector<uint64_t>& sizes, const Staging& staging) : threads_(staging.threads) {
    for (const uint64_t size : sizes) {
      parts_.push_back({bytes_, size});
      bytes_ += kernels::round_up(size, model::kSliceAlignment);
    }
  }
  ~SliceMemory() { unmap(); }
  SliceMemory(const SliceMemory&) = delete;
  SliceMemory& operator=(const SliceMemory&) = delete;

  // Fails where the host has no more memory.
  Result<void> allocate(bool in_region) {
    if (in_region) {
      if (auto ok = map(); !ok) return ok;
    }
    if (mapped_ == nullptr) {
      for (const StagedAdapter::Part& part : std::exchange(parts_, {})) own_.emplace_back(part.bytes);
      for (std::vector<uint8_t>& slice : own_) slices_.push_back(slice.data());
    }
    for (const StagedAdapter::Part& part : parts_) slices_.push_back(mapped_ + part.offset);
    return {};
  }

  std::span<uint8_t* const> slices() const { return slices_; }

  // Once all is written.
  Result<void> give(StagedAdapter& to) && {
    unmap();
    for (const std::vector<uint8_t>& slice : own_) to.bytes += slice.size();
    to.slices = std::move(own_);
    if (parts_.empty()) return {};
    if (auto ok = region_.seal(); !ok) return ok;
    to.region = std::move(region_);
    to.parts = std::move(parts_);
    to.bytes += bytes_;
    return {};
  }

 private:
  // Where the system has no such memory, or descriptors are few, nothing is mapped.
  Result<void> map() {
    auto made = kernels::ResidentMemory::make("lorikeet-adapter");
    if (!made || !leaves_descriptors(made->descriptor()) ||
        ftruncate(made->descriptor().get(), static_cast<off_t>(bytes_)) != 0)
      return {};
    void* const at = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, made->descriptor().get(), 0);
    if (at == MAP_FAILED) return {};
    madvise(at, bytes_, MADV_HUGEPAGE);  // where the system gives large pages to such memory, there are fewer to fill
    mapped_ = static_cast<uint8_t*>(at);
    region_ = std::move(*made);
    return fill();
  }
  // A page that cannot be had ends the process where it is first written to, so all of them come here.
  Result<void> fill() {
    std::mutex mutex;
    Result<void> filled;
    in_pieces([&](uint64_t offset, uint64_t bytes) {
      auto ok = kernels::populate({mapped_ + offset, bytes}, region_.descriptor(), offset);
      const std::lock_guard lock(mutex);
      if (!ok && filled) filled = std::move(ok);
    });
    return filled;
  }
  // What is mapped for writing cannot be sealed. Page by page, which takes as long as packing a good part of them.
  void unmap() {
    uint8_t* const at = std::exchange(mapped_, nullptr);
    if (at == nullptr) return;
    in_pieces([&](uint64_t offset, uint64_t bytes) { CHECK_EQ(munmap(at + offset, bytes), 0); });
  }
  // Of whole pages, one for each thread.
  void in_pieces(const std::function<void(uint64_t offset, uint64_t bytes)>& work) const {
    const uint64_t piece = kernels::round_up(kernels::divide_up(bytes_, static_cast<uint64_t>(std::max(1, threads_))),
                                             model::kSliceAlignment);
    model::in_parallel(kernels::divide_up(bytes_, piece), threads_,
                       [&](size_t i) { work(i * piece, std::min(piece, bytes_ - i * piece)); });
  }

  const int threads_;
  uint64_t bytes_ = 0;
  std::vector<StagedAdapter::Part> parts_;
  kernels::ResidentMemory region_;
  uint8_t* mapped_ = nullptr;
  std::vector<std::vector<uint8_t>> own_;
  std::vector<uint8_t*> slices_;
};

Result<std::shared_ptr<const StagedAdapter>> stage(const std::filesystem::path& dir, const model::ShardPlan& plan,
                                                   int32_t max_lora_rank, const std::vector<std::string>& within,
                                                   const Staging& staging) {
  const auto adapter = model::read_adapter(dir, plan.config(), {max_lora_rank, within, staging.threads});
  if (!adapter) return tl::unexpected(adapter.error());
  auto staged = std::make_shared<StagedAdapter>();
  staged->digest = adapter->digest;
  staged->max_rank = adapter->max_rank;
  const auto ranks = static_cast<size_t>(plan.size());
  const bool dora = adapter->uses_dora();
  std::vector<model::AdapterSlice> slices;
  std::vector<std::vector<uint8_t>> encoded;
  std::vector<uint64_t> sizes;
  for (size_t rank = 0; rank < ranks; ++rank) {
    if (dora) {
      const model::Adapter part = model::cut_adapter(*adapter, plan, static_cast<int>(rank));
      add_magnitudes(part, rank, ranks, staged->dora);
      encoded.push_back(model::encode_adapter(part));
      sizes.push_back(encoded.back().size());
    } else {
      slices.push_back(model::plan_slice(*adapter, plan, static_cast<int>(rank), staging.layout));
      sizes.push_back(slices.back().bytes);
    }
  }
  for (const uint64_t size : sizes) {
    if (size > kMaxAdapterSliceBytes) {
      return fail("{}: {} bytes for one rank, at most {} are taken: more ranks would share them", dir.string(), size,
                  kMaxAdapterSliceBytes);
    }
  }
  SliceMemory memory(sizes, staging);
  if (auto ok = memory.allocate(staging.in_region); !ok) return fail("{}: {}", dir.string(), ok.error().message);
  if (dora) {
    for (size_t rank = 0; rank < ranks; ++rank) {
      std::copy(encoded[rank].begin(), encoded[rank].end(), memory.slices()[rank]);
      std::vector<uint8_t>().swap(encoded[rank]);
    }
  } else if (auto ok = model::write_slices(*adapter, plan, slices, memory.slices(), staging.threads); !ok) {
    return fail("{}: {}", dir.string(), ok.error().message);
  }
  if (auto ok = std::move(memory).give(*staged); !ok) return fail("{}: {}", dir.string(), ok.error().message);
  for (const auto& pair : staged->dora) {
    for (const auto& magnitude : pair.magnitude) staged->bytes += magnitude.size() * sizeof(float);
  }
  return staged;
}

}  // namespace

Result<std::shared_ptr<const StagedAdapter>> stage_adapter(const std::filesystem::path& dir,
                                                           const model::ShardPlan& plan, int32_t max_lora_rank,
                                                           const std::vector<std::string>& within,
                                                           const Staging& staging) {
  try {
    return stage(dir, plan, max_lora_rank, within, staging);
  } catch (const std::bad_alloc&) {
    return fail("{}: the host's memory does not hold the adapter", dir.string());
  }
}

Result<std::vector<DoraValues>> dora_factors(const StagedAdapter& adapter, std::span<const DoraValues> norms) {
  const size_t ranks = adapter.ranks();
  CHECK_EQ(norms.size(), ranks);
  std::vector<DoraValues> factors(ranks);
  for (size_t rank = 0; rank < ranks; ++rank) {
    if (norms[rank].pairs.size() != adapter.dora.size()) {
      return fail("rank {} gives the norms of {} layers of {}", rank, norms[rank].pairs.size(), adapter.dora.size());
    }
    factors[rank].pairs.resize(adapter.dora.size());
  }
  for (size_t pair = 0; pair < adapter.dora.size(); ++pair) {
    const StagedAdapter::DoraPair& dora = adapter.dora[pair];
    for (size_t rank = 0; rank < ranks; ++rank) {
      const std::vector<float>& magnitude = dora.magnitude[rank];
      std::vector<float> squared = norms[dora.row_parallel ? 0 : rank].pairs[pair].values;
      if (squared.size() != magnitude.size()) {
        return fail("rank {} gives {} norms where the adapter has {}", rank, squared.size(), magnitude.size());
      }
      for (size_t other = 1; dora.row_parallel && other < ranks; ++other) {
        const std::vector<float>& part = norms[other].pairs[pair].values;
        if (part.size() != squared.size()) {
          return fail("rank {} gives {} norms where the adapter has {}", other, part.size(), squared.size());
        }
        for (size_t i = 0; i < squared.size(); ++i) squared[i] += part[i];
      }
      std::vector<float>& to = factors[rank].pairs[pair].values;
      to.resize(magnitude.size());
      for (size_t i = 0; i < squared.size(); ++i) {
        if (squared[i] == 0 && magnitude[i] == 0) continue;  // a padded neuron, which stays 0
        if (!(std::isfinite(squared[i]) && squared[i] > 0)) {
          return fail("{}: row {} of rank {} of W + scale * B A has the squared norm {}, by whose root DoRA divides",
                      dora.module, i, rank, squared[i]);
        }
        to[i] = static_cast<float>(magnitude[i] / std::sqrt(static_cast<double>(squared[i])));
      }
    }
  }
  return factors;
}

}  // namespace lorikeet::actors
