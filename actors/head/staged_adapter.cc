#include "actors/head/staged_adapter.h"

#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>
#include <cmath>
#include <new>
#include <optional>
#include <utility>

#include "actors/head/staging_memory.h"
#include "actors/wire/limits.h"
#include "kernels/base/rounding.h"
#include "model/adapter/adapter_file.h"

namespace lorikeet::actors {
namespace {

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

// Memory for the slices of all ranks while they are written: one after the other in memory that can be shared or, where the
// system has none, in this process's own.
class SliceMemory {
 public:
  SliceMemory(const std::vector<uint64_t>& sizes, const Staging& staging) : threads_(staging.threads) {
    uint64_t bytes = 0;
    for (const uint64_t size : sizes) {
      parts_.push_back({bytes, size});
      bytes += kernels::round_up(size, model::kSliceAlignment);
    }
    if (staging.in_region && staging.spare != nullptr) shared_ = staging.spare->take(bytes);
    if (staging.in_region && !shared_) shared_ = StagingMemory::make(bytes);
    if (!shared_) {
      for (const StagedAdapter::Part& part : std::exchange(parts_, {})) own_.emplace_back(part.bytes);
      for (std::vector<uint8_t>& slice : own_) slices_.push_back(slice.data());
    }
    for (const StagedAdapter::Part& part : parts_) slices_.push_back(shared_->data() + part.offset);
  }
  SliceMemory(const SliceMemory&) = delete;
  SliceMemory& operator=(const SliceMemory&) = delete;

  std::span<uint8_t* const> slices() const { return slices_; }

  // Fetches the pages of a part of a slice before it is written. Fails where the host has no more memory. Threads: any.
  Result<void> populate(size_t rank, model::SliceRange range) const {
    return shared_ ? shared_->populate(parts_[rank].offset + range.offset, range.bytes) : Result<void>();
  }

  // Says that a part of a slice has been written. Threads: any.
  void written(size_t rank, model::SliceRange range) const {
    if (shared_) shared_->written(parts_[rank].offset + range.offset, range.bytes);
  }

  Result<void> populate_all() { return shared_ ? shared_->populate_all(threads_) : Result<void>(); }

  // Once all is written.
  Result<void> give(StagedAdapter& to) && {
    for (const std::vector<uint8_t>& slice : own_) to.bytes += slice.size();
    to.slices = std::move(own_);
    if (!shared_) return {};
    const uint64_t bytes = shared_->bytes();
    auto region = (*std::move(shared_)).seal(threads_);
    if (!region) return tl::unexpected(region.error());
    to.region = *std::move(region);
    to.parts = std::move(parts_);
    to.bytes += bytes;
    return {};
  }

 private:
  const int threads_;
  std::vector<StagedAdapter::Part> parts_;
  std::optional<StagingMemory> shared_;
  std::vector<std::vector<uint8_t>> own_;
  std::vector<uint8_t*> slices_;
};

std::vector<model::AdapterSlice> plan_slices(const model::Adapter& adapter, const model::ShardPlan& plan,
                                             model::SliceLayout layout) {
  std::vector<model::AdapterSlice> slices;
  for (int rank = 0; rank < plan.size(); ++rank) slices.push_back(model::plan_slice(adapter, plan, rank, layout));
  return slices;
}

template <class Slice, class SizeOf>
Result<std::vector<uint64_t>> sizes_of(const std::vector<Slice>& slices, const SizeOf& size_of) {
  std::vector<uint64_t> sizes;
  for (const Slice& slice : slices) {
    sizes.push_back(size_of(slice));
    if (sizes.back() > kMaxAdapterSliceBytes) {
      return fail("{} bytes for one rank, at most {} are taken: more ranks would share them", sizes.back(),
                  kMaxAdapterSliceBytes);
    }
  }
  return sizes;
}

// An error that does not say yet of which adapter it is.
Result<void> at(const std::filesystem::path& dir, Result<void> done) {
  return done ? done : fail("{}: {}", dir.string(), done.error().message);
}

// Each thread packs the matrix that it has just read into pages that it has just fetched: nothing of the file is in memory
// twice, and most of it stays in the cache in between.
Result<void> stream(const std::filesystem::path& dir, model::AdapterFile& file, const model::ShardPlan& plan,
                    const Staging& staging, StagedAdapter& staged) {
  auto slices = plan_slices(file.outline(), plan, staging.layout);
  const auto sizes = sizes_of(slices, [](const model::AdapterSlice& slice) { return slice.bytes; });
  if (!sizes) return at(dir, tl::unexpected(sizes.error()));
  SliceMemory memory(*sizes, staging);
  const auto take = [&](const model::LoraMatrix& matrix) -> Result<void> {
    for (size_t rank = 0; rank < slices.size(); ++rank) {
      const model::SliceRange range = model::range_of(slices[rank], matrix.place, matrix.is_b);
      if (auto ok = memory.populate(rank, range); !ok) return at(dir, std::move(ok));
    }
    if (auto ok = model::write_matrix(matrix, file.outline(), plan, slices, memory.slices()); !ok) {
      return at(dir, std::move(ok));
    }
    for (size_t rank = 0; rank < slices.size(); ++rank) {
      memory.written(rank, model::range_of(slices[rank], matrix.place, matrix.is_b));
    }
    return {};
  };
  auto digest = file.stream(take);
  if (!digest) return tl::unexpected(digest.error());
  for (size_t rank = 0; rank < slices.size(); ++rank) {
    slices[rank].digest = *digest;
    if (auto ok = memory.populate(rank, model::header_range(slices[rank])); !ok) return at(dir, std::move(ok));
    model::write_header(slices[rank], memory.slices()[rank]);
  }
  staged.digest = *std::move(digest);
  staged.max_rank = file.outline().max_rank;
  return at(dir, std::move(memory).give(staged));
}

// Read whole, and then packed; with DoRA, whose factors the ranks make, encoded.
Result<void> pack(const model::Adapter& adapter, const model::ShardPlan& plan, const Staging& staging,
                  StagedAdapter& staged) {
  const auto ranks = static_cast<size_t>(plan.size());
  staged.digest = adapter.digest;
  staged.max_rank = adapter.max_rank;
  std::vector<model::AdapterSlice> slices;
  std::vector<std::vector<uint8_t>> encoded;
  if (adapter.uses_dora()) {
    for (size_t rank = 0; rank < ranks; ++rank) {
      const model::Adapter part = model::cut_adapter(adapter, plan, static_cast<int>(rank));
      add_magnitudes(part, rank, ranks, staged.dora);
      encoded.push_back(model::encode_adapter(part));
    }
  } else {
    slices = plan_slices(adapter, plan, staging.layout);
  }
  const auto sizes = slices.empty() ? sizes_of(encoded, [](const std::vector<uint8_t>& slice) { return slice.size(); })
                                    : sizes_of(slices, [](const model::AdapterSlice& slice) { return slice.bytes; });
  if (!sizes) return tl::unexpected(sizes.error());
  SliceMemory memory(*sizes, staging);
  if (auto ok = memory.populate_all(); !ok) return ok;
  for (size_t rank = 0; rank < encoded.size(); ++rank) {
    std::copy(encoded[rank].begin(), encoded[rank].end(), memory.slices()[rank]);
    std::vector<uint8_t>().swap(encoded[rank]);
  }
  if (!slices.empty()) {
    if (auto ok = model::write_slices(adapter, plan, slices, memory.slices(), staging.threads); !ok) return ok;
  }
  if (auto ok = std::move(memory).give(staged); !ok) return ok;
  for (const auto& pair : staged.dora) {
    for (const auto& magnitude : pair.magnitude) staged.bytes += magnitude.size() * sizeof(float);
  }
  return {};
}

Result<std::shared_ptr<const StagedAdapter>> stage(const std::filesystem::path& dir, const model::ShardPlan& plan,
                                                   int32_t max_lora_rank, const std::vector<std::string>& within,
                                                   const Staging& staging) {
  auto file = model::AdapterFile::open(dir, plan.config(), {max_lora_rank, within, staging.threads});
  if (!file) return tl::unexpected(file.error());
  auto staged = std::make_shared<StagedAdapter>();
  Result<void> done;
  if (file->can_stream()) {
    done = stream(dir, *file, plan, staging, *staged);
  } else {
    const auto adapter = file->read();
    if (!adapter) return tl::unexpected(adapter.error());
    done = at(dir, pack(*adapter, plan, staging, *staged));
  }
  if (!done) return tl::unexpected(done.error());
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
