#include "model/forward/sampler_cpu.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/sampling/sampling.h"

namespace lorikeet::model {
namespace {

using kernels::LogitMass;
using kernels::ScoredToken;

// One call's state: what every step of the way needs.
class Finisher {
 public:
  Finisher(std::span<const BatchRow> rows, std::span<const LogitsUse> uses, std::vector<float>& logits,
           const ShardPlan& plan, comm::Collective& group, kernels::ThreadPool& pool)
      : rows_(rows),
        uses_(uses),
        logits_(logits),
        plan_(plan),
        group_(group),
        pool_(pool),
        vocab_(plan.shard(group.rank()).vocab) {}

  // log(sum of exp(logit)) of every use, as computed; empty where no use needs it.
  std::vector<float> normalizers() {
    const bool needed = std::any_of(uses_.begin(), uses_.end(), [&](const LogitsUse& use) {
      return use.target >= 0 || (use.sample && rows_[use.row].sampling.logprobs >= 0);
    });
    if (!needed) return {};
    std::vector<LogitMass> own(uses_.size());
    for_each_use([&](size_t u) { own[u] = kernels::logit_mass_cpu(logits_of(u), vocab_.size()); });
    const std::vector<LogitMass> all = gather(own);
    std::vector<float> result(uses_.size());
    std::vector<LogitMass> parts(static_cast<size_t>(group_.size()));
    for (size_t u = 0; u < uses_.size(); ++u) {
      for (size_t r = 0; r < parts.size(); ++r) parts[r] = all[r * uses_.size() + u];
      result[u] = kernels::log_normalizer_cpu(parts.data(), group_.size());
    }
    return result;
  }

  // The raw logit of token_ids[u] for every use (0 where that is -1), told by the rank that holds it.
  std::vector<float> logits_at(const std::vector<int32_t>& token_ids) {
    std::vector<float> own(uses_.size(), 0.0F);
    for (size_t u = 0; u < uses_.size(); ++u) {
      if (holds(token_ids[u])) own[u] = logits_of(u)[token_ids[u] - vocab_.begin];
    }
    const std::vector<float> all = gather(own);
    for (size_t u = 0; u < uses_.size(); ++u) {
      if (token_ids[u] >= 0) own[u] = all[owner_of(token_ids[u]) * uses_.size() + u];
    }
    return own;
  }

  // How many raw logits of a use are at least `at`, for the uses that want to know; 0 for the others.
  std::vector<int32_t> counts_at_least(const std::vector<float>& at, const std::vector<bool>& wanted) {
    std::vector<int32_t> own(uses_.size(), 0);
    for_each_use([&](size_t u) {
      if (wanted[u]) own[u] = kernels::count_at_least_cpu(logits_of(u), vocab_.size(), at[u]);
    });
    const std::vector<int32_t> all = gather(own);
    std::fill(own.begin(), own.end(), 0);
    for (size_t i = 0; i < all.size(); ++i) own[i % own.size()] += all[i];
    return own;
  }

  // The k best raw logits of every use that asks for them, best first.
  std::vector<std::vector<ScoredToken>> best(const std::vector<int32_t>& k) {
    std::vector<std::vector<ScoredToken>> of_use(uses_.size());
    for_each_use([&](size_t u) {
      of_use[u] = kernels::top_tokens_cpu(logits_of(u), vocab_.size(), vocab_.begin, k[u]);
      of_use[u].resize(static_cast<size_t>(k[u]));  // a small shard has fewer: the rest is marked by its id -1
    });
    std::vector<ScoredToken> own;
    for (const auto& tokens : of_use) own.insert(own.end(), tokens.begin(), tokens.end());
    const std::vector<ScoredToken> all = gather(own);
    std::vector<std::vector<ScoredToken>> result(uses_.size());
    size_t at = 0;
    for (size_t u = 0; u < uses_.size(); at += static_cast<size_t>(k[u]), ++u) {
      for (int r = 0; r < group_.size(); ++r) {
        const auto begin = all.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(r) * own.size() + at);
        std::copy_if(begin, begin + k[u], std::back_inserter(result[u]),
                     [](const ScoredToken& t) { return t.token_id >= 0; });
      }
      std::sort(result[u].begin(), result[u].end(),
                [](const ScoredToken& a, const ScoredToken& b) { return a.better_than(b); });
      result[u].resize(std::min(result[u].size(), static_cast<size_t>(k[u])));
    }
    return result;
  }

  void constrain(const std::vector<int32_t>& pending) {
    for (size_t u = 0; u < uses_.size(); ++u) {
      const BatchRow& row = rows_[uses_[u].row];
      if (!uses_[u].sample || !row.constraint.any()) continue;
      const int32_t extra = pending[uses_[u].row];
      kernels::constrain_logits_cpu(logits_of(u), vocab_.size(), vocab_.begin, row.constraint,
                                    extra >= 0 ? extra : row.token_ids.back());
    }
  }

  void apply_penalties(const std::vector<int32_t>& pending) {
    for (size_t u = 0; u < uses_.size(); ++u) {
      if (!uses_[u].sample) continue;
      const BatchRow& row = rows_[uses_[u].row];
      const RowSampling& s = row.sampling;
      const kernels::PenaltyParameters penalty{s.repetition_penalty, s.presence_penalty, s.frequency_penalty};
      if (!penalty.any()) continue;
      int32_t extra = pending[uses_[u].row];
      for (const TokenCount& count : row.counts) {
        const bool again = count.token_id == extra;
        if (again) extra = -1;
        penalize(u, count.token_id, penalty, count.in_output + (again ? 1 : 0));
      }
      if (extra >= 0) penalize(u, extra, penalty, 1);
    }
  }

  // The drawn token of every use that samples, or kNoToken; that of the others, too.
  std::vector<int32_t> draw() {
    std::vector<size_t> plain, filtered;
    for (size_t u = 0; u < uses_.size(); ++u) {
      if (uses_[u].sample) (draw_of(u).filtered() ? filtered : plain).push_back(u);
    }
    std::vector<int32_t> drawn(uses_.size(), kNoToken);
    draw_plain(plain, drawn);
    draw_filtered(filtered, drawn);
    return drawn;
  }

 private:
  float* logits_of(size_t use) { return logits_.data() + use * static_cast<size_t>(vocab_.size()); }
  bool holds(int32_t token_id) const { return token_id >= vocab_.begin && token_id < vocab_.end; }

  size_t owner_of(int32_t token_id) const {
    size_t rank = 0;
    while (token_id >= plan_.shard(static_cast<int>(rank)).vocab.end) ++rank;
    return rank;
  }

  kernels::DrawParameters draw_of(size_t use) const {
    const BatchRow& row = rows_[uses_[use].row];
    const RowSampling& s = row.sampling;
    return {s.temperature, s.top_p, s.top_k, s.min_p, s.seed, row.start + static_cast<int32_t>(row.token_ids.size())};
  }

  void penalize(size_t use, int32_t token_id, const kernels::PenaltyParameters& penalty, int32_t in_output) {
    if (!holds(token_id)) return;
    float& logit = logits_of(use)[token_id - vocab_.begin];
    logit = kernels::penalized_logit_cpu(logit, penalty, in_output);
  }

  // Greedy rows and those without filters: every rank finds its best token, and the best of those is drawn.
  void draw_plain(const std::vector<size_t>& plain, std::vector<int32_t>& drawn) {
    constexpr int32_t kPart = 8192;  // tokens
    const auto parts = static_cast<size_t>((vocab_.size() + kPart - 1) / kPart);
    std::vector<ScoredToken> of_part(plain.size() * parts);
    pool_.parallel_for(static_cast<int64_t>(of_part.size()), 1, [&](int64_t begin, int64_t end) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
        const size_t u = plain[i / parts];
        const auto first = static_cast<int32_t>(i % parts) * kPart;
        of_part[i] = kernels::best_token_cpu(logits_of(u) + first, std::min(kPart, vocab_.size() - first),
                                             vocab_.begin + first, draw_of(u));
      }
    });
    std::vector<ScoredToken> own(plain.size());
    for (size_t i = 0; i < of_part.size(); ++i) keep_better(own[i / parts], of_part[i]);
    const std::vector<ScoredToken> all = gather(own);
    for (size_t i = 0; i < plain.size(); ++i) {
      ScoredToken winner;
      for (size_t r = 0; r < static_cast<size_t>(group_.size()); ++r) keep_better(winner, all[r * plain.size() + i]);
      drawn[plain[i]] = std::isfinite(winner.score) ? winner.token_id : kNoToken;
    }
  }

  static void keep_better(ScoredToken& winner, const ScoredToken& token) {
    if (token.token_id >= 0 && token.better_than(winner)) winner = token;
  }

  void draw_filtered(const std::vector<size_t>& filtered, std::vector<int32_t>& drawn) {
    if (filtered.empty()) return;
    // Shards may differ in size by one row; all send the largest.
    int32_t widest = 0;
    for (int r = 0; r < group_.size(); ++r) widest = std::max(widest, plan_.shard(r).vocab.size());
    std::vector<float> own(filtered.size() * static_cast<size_t>(widest), 0.0F);
    for (size_t i = 0; i < filtered.size(); ++i) {
      std::memcpy(own.data() + i * static_cast<size_t>(widest), logits_of(filtered[i]),
                  static_cast<size_t>(vocab_.size()) * sizeof(float));
    }
    const std::vector<float> all = gather(own);
    pool_.parallel_for(static_cast<int64_t>(filtered.size()), 1, [&](int64_t begin, int64_t end) {
      thread_local std::vector<float> whole;  // of the vocabulary's size: parts are a row or two
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
        whole.clear();
        for (int r = 0; r < group_.size(); ++r) {
          const float* part = all.data() + static_cast<size_t>(r) * own.size() + i * static_cast<size_t>(widest);
          whole.insert(whole.end(), part, part + plan_.shard(r).vocab.size());
        }
        drawn[filtered[i]] =
            kernels::draw_filtered_cpu(whole.data(), static_cast<int32_t>(whole.size()), draw_of(filtered[i]));
      }
    });
  }

  template <class F>
  void for_each_use(const F& f) {
    pool_.parallel_for(static_cast<int64_t>(uses_.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; ++u) f(static_cast<size_t>(u));
    });
  }

  // [ranks, own.size()]
  template <class T>
  std::vector<T> gather(const std::vector<T>& own) {
    std::vector<T> all(own.size() * static_cast<size_t>(group_.size()));
    if (!own.empty()) group_.all_gather(own.data(), all.data(), own.size() * sizeof(T));
    return all;
  }

  std::span<const BatchRow> rows_;
  std::span<const LogitsUse> uses_;
  std::vector<float>& logits_;
  const ShardPlan& plan_;
  comm::Collective& group_;
  kernels::ThreadPool& pool_;
  const Range vocab_;
};

}  // namespace

void finish_rows_cpu(std::span<const BatchRow> rows, std::span<const LogitsUse> uses,
                     const std::vector<int32_t>& pending, std::vector<float>& logits, const ShardPlan& plan,
                     comm::Collective& group, kernels::ThreadPool& pool, std::vector<RowOutput>& outputs) {
  if (uses.empty()) return;
  Finisher finisher(rows, uses, logits, plan, group, pool);
  const std::vector<float> normalizers = finisher.normalizers();
  std::vector<float> raw;  // constraints and penalties change the logits, and what is reported is from before
  std::vector<std::vector<ScoredToken>> best;
  std::vector<int32_t> targets(uses.size(), -1), wanted(uses.size(), 0);
  std::vector<bool> ranked(uses.size(), false);
  bool with_targets = false, with_best = false, with_ranks = false;
  for (size_t u = 0; u < uses.size(); ++u) {
    targets[u] = uses[u].target;
    with_targets |= uses[u].target >= 0;
    if (const int32_t top = rows[uses[u].row].sampling.target_top_logprobs; uses[u].target >= 0 && top >= 0) {
      wanted[u] = std::min(top, plan.config().vocab_size);
      ranked[u] = with_ranks = true;
    }
    if (uses[u].sample) {
      wanted[u] = std::max(wanted[u], std::clamp(rows[uses[u].row].sampling.logprobs, 0, plan.config().vocab_size));
    }
    with_best |= uses[u].sample && rows[uses[u].row].sampling.logprobs >= 0;
  }
  if (with_best || with_ranks) best = finisher.best(wanted);
  if (with_targets) {
    const std::vector<float> at = finisher.logits_at(targets);
    std::vector<int32_t> counts;
    if (with_ranks) counts = finisher.counts_at_least(at, ranked);
    for (size_t u = 0; u < uses.size(); ++u) {
      if (targets[u] < 0) continue;
      RowOutput& output = outputs[uses[u].row];
      const auto index = static_cast<size_t>(uses[u].target_index);
      output.target_logprobs[index] = at[u] - normalizers[u];
      if (!ranked[u]) continue;
      output.target_ranks.resize(output.target_logprobs.size());
      output.target_best.resize(output.target_logprobs.size());
      output.target_ranks[index] = counts[u];
      const auto top = static_cast<size_t>(rows[uses[u].row].sampling.target_top_logprobs);
      for (const ScoredToken& token : std::span(best[u]).first(std::min(top, best[u].size()))) {
        output.target_best[index].push_back({token.token_id, token.score - normalizers[u]});
      }
    }
  }
  if (with_best) raw = logits;
  finisher.constrain(pending);
  finisher.apply_penalties(pending);
  const std::vector<int32_t> drawn = finisher.draw();
  for (size_t u = 0; u < uses.size(); ++u) {
    if (uses[u].sample) outputs[uses[u].row].token_id = drawn[u];
  }
  if (!with_best) return;
  logits.swap(raw);
  const std::vector<float> at = finisher.logits_at(drawn);
  for (size_t u = 0; u < uses.size(); ++u) {
    if (drawn[u] == kNoToken || rows[uses[u].row].sampling.logprobs < 0) continue;
    std::vector<TokenProbability>& out = outputs[uses[u].row].logprobs;
    bool among = false;
    const auto top = static_cast<size_t>(rows[uses[u].row].sampling.logprobs);
    for (const ScoredToken& token : std::span(best[u]).first(std::min(top, best[u].size()))) {
      out.push_back({token.token_id, token.score - normalizers[u]});
      among |= token.token_id == drawn[u];
    }
    if (!among) out.push_back({drawn[u], at[u] - normalizers[u]});
  }
}

}  // namespace lorikeet::model
