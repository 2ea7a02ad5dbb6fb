#include "model/forward/sampler_cuda.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

#include "kernels/cuda/pinned_copy_cuda.h"
#include "kernels/sampling/sampling.h"

namespace lorikeet::model {
namespace {

using kernels::Candidate;
using kernels::DeviceBuffer;
using kernels::LogitStatistics;

constexpr int32_t kGatheredRows = 32;          // of logits that are gathered over the ranks at a time
constexpr int64_t kUsualCounts = 1 << 18;      // token counts of a portion
constexpr int64_t kBiases = 1 << 15;           // of a portion's constraints
constexpr int64_t kUsualBestTokens = 1 << 16;  // entries of the lists of best tokens

uint64_t bytes_of_constraints(const SamplePortion& portion) {
  Carver carver(nullptr);
  const ConstraintArrays arrays(portion, carver);
  return carver.used();
}

template <class T>
T* part_of_rank(const DeviceBuffer& buffer, int rank, int64_t part) {
  return buffer.as<T>() + rank * part;
}

}  // namespace

PortionResults::PortionResults(const SamplePortion& portion, int ranks, Carver& carver)
    : statistics(carver.take<LogitStatistics>(ranks * static_cast<int64_t>(portion.logprobs.size()))),
      best(carver.take<Candidate>(ranks * static_cast<int64_t>(portion.logprobs.size()) * portion.stride)),
      counts_at_least(carver.take<int32_t>(portion.ranked ? ranks * static_cast<int64_t>(portion.logprobs.size()) : 0)),
      counts(carver.take<kernels::DeviceTokenCount>(static_cast<int64_t>(portion.counts.size()))),
      constraints(portion, carver),
      constraint_bytes(bytes_of_constraints(portion)) {}

Result<CudaSampler> CudaSampler::make(const ShardPlan& plan, int rank, int32_t max_rows, int32_t logits_rows,
                                      int32_t max_model_len) {
  const int ranks = plan.size();
  if (ranks > kernels::kMaxVocabPieces) {
    return fail("the vocabulary can be cut over {} GPUs at most, not over {}", kernels::kMaxVocabPieces, ranks);
  }
  CudaSampler sampler(plan, rank);
  const int32_t vocab = plan.config().vocab_size;
  int32_t widest = 0;
  for (int r = 0; r < ranks; ++r) widest = std::max(widest, plan.shard(r).vocab.size());
  sampler.stride_ = (int64_t{widest} + 3) / 4 * 4;
  sampler.limits_ = {logits_rows, std::max<int64_t>(kUsualCounts, std::min(vocab, max_model_len)), kBiases,
                     std::max<int64_t>(kUsualBestTokens, 2 * int64_t{vocab}), vocab};
  const int32_t own = plan.shard(rank).vocab.size();
  const int64_t lists = 2 * int64_t{logits_rows};
  const auto allocate = [&](DeviceBuffer& buffer, uint64_t bytes) -> Result<void> {
    auto made = DeviceBuffer::allocate(bytes, "sampling");
    if (!made) return tl::unexpected(made.error());
    buffer = *std::move(made);
    sampler.bytes_ += bytes;
    return {};
  };
  const auto u = [](int64_t n) { return static_cast<uint64_t>(n); };
  Result<void> ok = allocate(sampler.drawn_, u(max_rows) * sizeof(int32_t));
  if (ok) ok = allocate(sampler.draw_workspace_, kernels::unfiltered_draw_workspace(logits_rows, own));
  if (ok) ok = allocate(sampler.cut_workspace_, kernels::vocab_cut_workspace(vocab));
  if (ok) {
    ok = allocate(sampler.statistics_workspace_, kernels::logit_statistics_workspace(static_cast<int32_t>(lists), own));
  }
  if (ok) ok = allocate(sampler.counts_, u(sampler.limits_.counts) * sizeof(kernels::DeviceTokenCount));
  if (ok) ok = allocate(sampler.saved_, u(sampler.limits_.counts + logits_rows) * sizeof(float));
  if (ok) {
    const uint64_t of_row = sizeof(kernels::ConstrainedRow) + u(kernels::mask_words(vocab)) * sizeof(uint32_t);
    ok = allocate(sampler.constraints_, u(logits_rows) * of_row + u(kBiases) * sizeof(kernels::TokenBias) + 3 * 16);
  }
  if (ok) ok = allocate(sampler.saved_of_biases_, u(kBiases) * sizeof(float));
  if (ok) ok = allocate(sampler.candidates_, u(int64_t{ranks} * logits_rows) * sizeof(Candidate));
  if (ok && ranks > 1) {
    ok = allocate(sampler.gathered_, u(ranks * kGatheredRows * sampler.stride_) * sizeof(float));
  }
  if (ok) ok = allocate(sampler.statistics_, u(ranks * lists) * sizeof(LogitStatistics));
  if (ok) ok = allocate(sampler.at_least_, u(ranks * lists) * sizeof(int32_t));
  if (ok) ok = allocate(sampler.best_, u(ranks * sampler.limits_.best) * sizeof(Candidate));
  if (!ok) return tl::unexpected(ok.error());
  auto stream = kernels::Stream::make();
  if (!stream) return tl::unexpected(stream.error());
  for (const DeviceBuffer* buffer :
       {&sampler.drawn_, &sampler.draw_workspace_, &sampler.cut_workspace_, &sampler.statistics_workspace_}) {
    kernels::fill_bytes(buffer->data(), 0, buffer->bytes(), *stream);
  }
  stream->synchronize();
  return sampler;
}

void CudaSampler::constrain(const SamplePortion& portion, const PortionResults& results,
                            const kernels::LogitsShard& shard, const int32_t* resolved, const kernels::Stream& stream) {
  CHECK_LE(results.constraint_bytes, constraints_.bytes());
  Carver carver(constraints_.data());
  const ConstraintArrays device(portion, carver);
  kernels::copy_pinned_to_device(constraints_.data(), results.constraints.rows, results.constraint_bytes, stream);
  kernels::constrain_logits_cuda({shard, device.rows, static_cast<int32_t>(portion.constrained.size()), device.masks,
                                  device.biases, resolved, saved_of_biases_.as<float>()},
                                 stream);
}

void CudaSampler::draw_unfiltered(const SamplePortion& portion, const SampleArrays& arrays,
                                  const kernels::LogitsShard& shard, comm::DeviceCollective* group,
                                  const kernels::Stream& stream) {
  kernels::UnfilteredDrawArgs args;
  args.shard = shard;
  args.rows = arrays.draws;
  args.num_rows = portion.unfiltered;
  args.best = part_of_rank<Candidate>(candidates_, rank_, portion.unfiltered);
  args.drawn = group == nullptr ? drawn_.as<int32_t>() : nullptr;
  args.workspace = draw_workspace_.data();
  args.workspace_rows = limits_.rows;
  kernels::draw_unfiltered_cuda(args, stream);
  if (group == nullptr) return;
  group->all_gather(args.best, candidates_.data(), static_cast<size_t>(portion.unfiltered) * sizeof(Candidate), stream);
  kernels::compare_draws_cuda(
      {candidates_.as<Candidate>(), group->size(), arrays.draws, portion.unfiltered, drawn_.as<int32_t>()}, stream);
}

void CudaSampler::draw_filtered(const SamplePortion& portion, const SampleArrays& arrays,
                                const kernels::LogitsShard& shard, comm::DeviceCollective* group,
                                const kernels::Stream& stream) {
  const int32_t end = static_cast<int32_t>(portion.draws.size());
  kernels::FilteredDrawArgs args;
  args.stride = shard.stride;
  args.pieces = plan_.size();
  for (int r = 0; r < args.pieces; ++r) args.vocab_begins[r] = plan_.shard(r).vocab.begin;
  args.vocab_begins[args.pieces] = plan_.config().vocab_size;
  args.drawn = drawn_.as<int32_t>();
  args.workspace = cut_workspace_.data();
  if (const kernels::PeerGroup* peers = group == nullptr ? nullptr : group->peers(); peers != nullptr) {
    args.pieces = 1;
    args.vocab_begins[0] = shard.vocab_begin;
    args.vocab_begins[1] = shard.vocab_begin + shard.vocab_size;
    args.logits = shard.logits;
    args.rows = arrays.draws + portion.unfiltered;
    args.num_rows = end - portion.unfiltered;
    args.peers = peers;
    args.tokens_of_peers = plan_.config().vocab_size;
    return kernels::draw_filtered_cuda(args, stream);
  }
  // Rows whose logits lie behind each other are gathered together: nearly always all, up to the room that there is.
  const auto logits_row = [&portion](int32_t draw) { return portion.draws[static_cast<size_t>(draw)].logits_row; };
  for (int32_t first = portion.unfiltered; first < end; first += args.num_rows) {
    args.rows = arrays.draws + first;
    args.num_rows = end - first;
    args.logits = shard.logits;
    if (group != nullptr) {
      int32_t count = 1;
      while (count < std::min(kGatheredRows, end - first) && logits_row(first + count) == logits_row(first) + count) {
        ++count;
      }
      args.num_rows = count;
      args.first_logits_row = logits_row(first);
      args.piece_stride = args.num_rows * shard.stride;
      group->all_gather(shard.logits + args.first_logits_row * shard.stride, gathered_.data(),
                        static_cast<size_t>(args.piece_stride) * sizeof(float), stream);
      args.logits = gathered_.as<float>();
    }
    kernels::draw_filtered_cuda(args, stream);
  }
}

void CudaSampler::queue(const SamplePortion& portion, const SampleArrays& arrays, float* logits,
                        const int32_t* resolved, const PortionResults& results, comm::DeviceCollective* group,
                        const kernels::Stream& stream) {
  const Range vocab = plan_.shard(rank_).vocab;
  const kernels::LogitsShard shard = {logits, stride_, vocab.begin, vocab.size()};
  const auto lists = static_cast<int32_t>(portion.logprobs.size());
  CHECK_LE(lists, 2 * limits_.rows);
  auto* statistics = part_of_rank<LogitStatistics>(statistics_, rank_, lists);
  auto* best = part_of_rank<Candidate>(best_, rank_, int64_t{lists} * portion.stride);
  if (lists > 0) {  // from before constraints and penalties
    kernels::LogprobArgs args;
    args.shard = shard;
    args.rows = arrays.logprobs;
    args.num_rows = lists;
    args.statistics = statistics;
    args.workspace = statistics_workspace_.data();
    args.workspace_rows = 2 * limits_.rows;
    kernels::logit_statistics_cuda(args, stream);
    if (portion.stride > 0) {
      kernels::top_tokens_cuda({shard, arrays.logprobs, lists, best, portion.stride, cut_workspace_.data(),
                                args.workspace, args.workspace_rows},
                               stream);
    }
  }

  if (!portion.constrained.empty()) constrain(portion, results, shard, resolved, stream);
  const auto num_counts = static_cast<int32_t>(portion.counts.size());
  if (portion.penalties) {
    kernels::copy_pinned_to_device(counts_.data(), results.counts,
                                   portion.counts.size() * sizeof(kernels::DeviceTokenCount), stream);
    kernels::apply_penalties_cuda({shard, arrays.draws, static_cast<int32_t>(portion.draws.size()),
                                   counts_.as<kernels::DeviceTokenCount>(), num_counts, resolved, saved_.as<float>()},
                                  stream);
  }
  if (portion.unfiltered > 0) draw_unfiltered(portion, arrays, shard, group, stream);
  if (static_cast<size_t>(portion.unfiltered) < portion.draws.size()) {
    draw_filtered(portion, arrays, shard, group, stream);
  }
  if (lists == 0) return;

  kernels::TokenLogitArgs args;
  args.shard = shard;
  args.rows = arrays.logprobs;
  args.num_rows = lists;
  args.drawn = drawn_.as<int32_t>();
  args.statistics = statistics;
  args.draw_rows = arrays.draws;
  args.counts = counts_.as<kernels::DeviceTokenCount>();
  args.num_counts = num_counts;
  args.resolved = resolved;
  args.saved = saved_.as<float>();
  Carver carver(constraints_.data());
  const ConstraintArrays constraints(portion, carver);
  args.constrained = constraints.rows;
  args.biases = constraints.biases;
  args.saved_of_biases = saved_of_biases_.as<float>();
  kernels::token_logits_cuda(args, stream);
  const auto statistics_bytes = static_cast<size_t>(lists) * sizeof(LogitStatistics);
  const auto best_bytes = static_cast<size_t>(lists) * static_cast<size_t>(portion.stride) * sizeof(Candidate);
  const auto ranks = static_cast<size_t>(plan_.size());
  if (group != nullptr) {
    group->all_gather(statistics, statistics_.data(), statistics_bytes, stream);
    if (best_bytes > 0) group->all_gather(best, best_.data(), best_bytes, stream);
  }
  if (portion.ranked) {
    auto* counts = part_of_rank<int32_t>(at_least_, rank_, lists);
    kernels::count_at_least_cuda(
        {shard, arrays.logprobs, lists, statistics_.as<LogitStatistics>(), plan_.size(), counts}, stream);
    const auto counts_bytes = static_cast<size_t>(lists) * sizeof(int32_t);
    if (group != nullptr) group->all_gather(counts, at_least_.data(), counts_bytes, stream);
    kernels::copy_to_host(results.counts_at_least, at_least_.data(), ranks * counts_bytes, stream);
  }
  kernels::copy_to_host(results.statistics, statistics_.data(), ranks * statistics_bytes, stream);
  if (best_bytes > 0) kernels::copy_to_host(results.best, best_.data(), ranks * best_bytes, stream);
}

void CudaSampler::finish(const SamplePortion& portion, const PortionResults& results, const int32_t* drawn,
                         std::span<RowOutput> outputs) const {
  for (const kernels::DrawRow& draw : portion.draws) {
    outputs[static_cast<size_t>(draw.draw_row)].token_id = drawn[draw.draw_row];
  }
  const auto ranks = static_cast<size_t>(plan_.size());
  const size_t lists = portion.logprobs.size();
  const auto stride = static_cast<size_t>(portion.stride);
  std::vector<kernels::LogitMass> parts(ranks);
  std::vector<kernels::ScoredToken> best;
  for (size_t i = 0; i < lists; ++i) {
    const LogprobUse& use = portion.uses[i];
    RowOutput& output = outputs[static_cast<size_t>(use.row)];
    float logit = -INFINITY;  // the ranks that do not have the token say this
    best.clear();
    for (size_t r = 0; r < ranks; ++r) {
      const LogitStatistics& part = results.statistics[r * lists + i];
      parts[r] = {part.largest, part.sum};
      logit = std::max(logit, part.logit);
      const int32_t size = plan_.shard(static_cast<int>(r)).vocab.size();
      for (int32_t j = 0; j < std::min(use.top, size); ++j) {
        const Candidate& c = results.best[(r * lists + i) * stride + static_cast<size_t>(j)];
        best.push_back({c.value, c.token_id});
      }
    }
    const float normalizer = kernels::log_normalizer_cpu(parts.data(), static_cast<int32_t>(ranks));
    if (use.target_index >= 0) {
      output.target_logprobs[static_cast<size_t>(use.target_index)] = logit - normalizer;
      if (!use.ranked) continue;
    }
    std::sort(best.begin(), best.end(),
              [](const kernels::ScoredToken& a, const kernels::ScoredToken& b) { return a.better_than(b); });
    best.resize(std::min(best.size(), static_cast<size_t>(use.top)));
    if (use.ranked) {
      output.target_ranks.resize(output.target_logprobs.size());
      output.target_best.resize(output.target_logprobs.size());
      const auto index = static_cast<size_t>(use.target_index);
      for (size_t r = 0; r < ranks; ++r) output.target_ranks[index] += results.counts_at_least[r * lists + i];
      for (const kernels::ScoredToken& token : best) {
        output.target_best[index].push_back({token.token_id, token.score - normalizer});
      }
      continue;
    }
    bool among = false;
    for (const kernels::ScoredToken& token : best) {
      output.logprobs.push_back({token.token_id, token.score - normalizer});
      among |= token.token_id == output.token_id;
    }
    if (!among) output.logprobs.push_back({output.token_id, logit - normalizer});
  }
}

}  // namespace lorikeet::model
