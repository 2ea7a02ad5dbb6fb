#include "actors/head/staged_adapter.h"

#include <fmt/format.h>
#include <glog/logging.h>

#include <cmath>
#include <utility>

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

}  // namespace

Result<std::shared_ptr<const StagedAdapter>> stage_adapter(const std::filesystem::path& dir,
                                                           const model::ShardPlan& plan, int32_t max_lora_rank,
                                                           const std::vector<std::string>& within) {
  const auto adapter = model::read_adapter(dir, plan.config(), {max_lora_rank, within});
  if (!adapter) return tl::unexpected(adapter.error());
  auto staged = std::make_shared<StagedAdapter>();
  staged->digest = adapter->digest;
  staged->max_rank = adapter->max_rank;
  const auto ranks = static_cast<size_t>(plan.size());
  for (size_t rank = 0; rank < ranks; ++rank) {
    const model::Adapter part = model::cut_adapter(*adapter, plan, static_cast<int>(rank));
    if (adapter->uses_dora()) add_magnitudes(part, rank, ranks, staged->dora);
    staged->slices.push_back(model::encode_adapter(part));
    staged->bytes += staged->slices.back().size();
  }
  for (const auto& pair : staged->dora) {
    for (const auto& magnitude : pair.magnitude) staged->bytes += magnitude.size() * sizeof(float);
  }
  return staged;
}

Result<std::vector<DoraValues>> dora_factors(const StagedAdapter& adapter, std::span<const DoraValues> norms) {
  const size_t ranks = adapter.slices.size();
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
