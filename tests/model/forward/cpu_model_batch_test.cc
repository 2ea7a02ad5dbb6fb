// The CPU model with many different sequences in one batch: against a plain float64 forward pass and sampler, and
// against itself with each sequence alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <optional>
#include <random>
#include <thread>

#include "comm/collective/group.h"
#include "kernels/sampling/philox.h"
#include "model/forward/rank_model.h"
#include "tests/model/forward/reference_model.h"
#include "tests/tolerance.h"

namespace lorikeet::model {
namespace {

ModelConfig small_config(Architecture architecture) {
  ModelConfig config;
  config.architecture = architecture;
  config.hidden_size = 96;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 32;
  config.intermediate_size = 160;  // five groups: cut unevenly over two and four ranks
  config.vocab_size = 83;
  config.max_position_embeddings = 4096;
  config.rope_theta = 1e4;
  config.tie_word_embeddings = architecture == Architecture::qwen3;
  config.quant.method = QuantMethod::gptq;
  config.quant.group_size = 32;
  return config;
}

std::vector<float> random_floats(int32_t count, float scale, std::mt19937& random) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

// One rank's weights, with norms that are not all 1.
RankWeights weights_of(const ShardPlan& plan, int rank) {
  RankWeights weights = make_dummy_rank_weights(plan, rank, 5);
  std::mt19937 random(6);
  const auto shake = [&](std::vector<float>& norm) {
    for (float& value : norm) value += std::normal_distribution<float>(0, 0.3F)(random);
  };
  shake(weights.final_norm);
  for (LayerWeights& layer : weights.layers) {
    for (auto* norm : {&layer.input_norm, &layer.post_attention_norm, &layer.q_norm, &layer.k_norm}) shake(*norm);
  }
  return weights;
}

LoraPair random_pair(int32_t rank, int32_t inputs, int32_t outputs, bool dora, std::mt19937& random) {
  LoraPair pair;
  pair.rank = rank;
  pair.scale = 0.7F;
  pair.inputs = inputs;
  pair.outputs = outputs;
  pair.a = random_floats(rank * inputs, 0.15F, random);
  pair.b = random_floats(outputs * rank, 0.3F, random);
  if (!dora) return pair;
  for (int32_t i = 0; i < outputs; ++i) pair.magnitude.push_back(0.5F + static_cast<float>(random() % 1000) / 1000);
  return pair;
}

enum AdapterKind : int32_t { kEverything, kDora, kAttention, kAdapters };

Adapter random_adapter(const ModelConfig& config, AdapterKind kind) {
  std::mt19937 random(static_cast<uint32_t>(kind) + 100);
  Adapter adapter;
  adapter.digest = "adapter " + std::to_string(kind);
  adapter.layers.resize(static_cast<size_t>(config.num_layers));
  for (LoraLayer& layer : adapter.layers) {
    for (const Projection p : kProjections) {
      if (kind == kAttention && p != Projection::v && p != Projection::o) continue;
      const int32_t rank = kind == kAttention ? 1 : 2 + static_cast<int32_t>(p);
      layer[static_cast<size_t>(p)] =
          random_pair(rank, input_size(config, p), output_size(config, p), kind == kDora, random);
    }
  }
  if (kind == kEverything) {
    adapter.embedding = random_pair(3, config.vocab_size, config.hidden_size, false, random);
    adapter.lm_head = random_pair(5, config.hidden_size, config.vocab_size, false, random);
  }
  return adapter;
}

// The ranks of one group, each with its model. Every call runs on all ranks at once.
class Ranks {
 public:
  Ranks(const ModelConfig& config, int size, int32_t num_threads) : plan_(ShardPlan::make(config, size).value()) {
    for (auto& end : comm::make_local_group(size)) groups_.push_back(std::move(end));
    models_.resize(groups_.size());
    on_all([&](size_t rank) {
      RankModelOptions options;
      options.block_size = 4;
      options.num_blocks = 200;
      options.num_slots = kAdapters;
      options.num_threads = num_threads;
      models_[rank] = make_cpu_model(weights_of(plan_, static_cast<int>(rank)), plan_, options, groups_[rank]).value();
      for (int32_t kind = 0; kind < kAdapters; ++kind) {
        Adapter part =
            cut_adapter(random_adapter(config, static_cast<AdapterKind>(kind)), plan_, static_cast<int>(rank));
        add_dora_factors(rank, part);
        EXPECT_TRUE(models_[rank]->set_adapter(kind, part).has_value());
      }
    });
  }

  // The ranks' outputs, which must be alike.
  std::vector<RowOutput> step(std::span<const BatchRow> rows) {
    begin(rows);
    return finish();
  }

  void begin(std::span<const BatchRow> rows) {
    on_all([&](size_t rank) { models_[rank]->begin_step(rows); });
  }

  std::vector<RowOutput> finish() {
    std::vector<std::vector<RowOutput>> outputs(models_.size());
    on_all([&](size_t rank) { outputs[rank] = models_[rank]->finish_step(); });
    for (const auto& other : outputs) {
      for (size_t i = 0; i < other.size(); ++i) {
        EXPECT_EQ(other[i].token_id, outputs[0][i].token_id);
        EXPECT_EQ(other[i].target_logprobs, outputs[0][i].target_logprobs);
      }
    }
    return outputs[0];
  }

  RankModel& model(size_t rank) { return *models_[rank]; }

 private:
  void on_all(const std::function<void(size_t)>& work) {
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < groups_.size(); ++rank) threads.emplace_back([&, rank] { work(rank); });
    for (std::thread& thread : threads) thread.join();
  }

  void add_dora_factors(size_t rank, Adapter& part) {
    const auto norms = models_[rank]->dora_squared_norms(part);
    size_t at = 0;
    for (LoraLayer& layer : part.layers) {
      for (const Projection p : kProjections) {
        auto& pair = layer[static_cast<size_t>(p)];
        if (!pair) continue;
        std::vector<float> squares = norms.at(at++);
        ASSERT_EQ(squares.size(), pair->magnitude.size());
        if (is_row_parallel(p)) groups_[rank]->all_reduce(squares.data(), squares.size());
        for (size_t i = 0; i < squares.size(); ++i)
          pair->dora_factor.push_back(pair->magnitude[i] / std::sqrt(squares[i]));
      }
    }
  }

  const ShardPlan plan_;
  std::vector<std::shared_ptr<comm::Collective>> groups_;
  std::vector<std::unique_ptr<RankModel>> models_;
};

struct Sequence {
  std::vector<int32_t> ids;  // the prompt, then what was drawn
  int32_t prompt_size = 0;
  int32_t slot = -1;
  bool prompt_logprobs = false;
  RowSampling sampling;

  std::vector<int32_t> blocks;
  int32_t computed = 0;
  int32_t pending_row = -1;          // of the step in flight that draws ids.back() (kPendingToken)
  std::vector<RowOutput> drawn;      // one per drawn token
  std::vector<float> prompt_scores;  // of positions 1 .. prompt_size - 1
  std::vector<TokenCount> counts;
  std::vector<int32_t> targets;  // of the row that was made last
};

std::vector<Sequence> sequences() {
  std::mt19937 random(8);
  std::vector<Sequence> all(7);
  std::vector<int32_t> blocks(200);
  std::iota(blocks.begin(), blocks.end(), 0);
  std::shuffle(blocks.begin(), blocks.end(), random);
  const int32_t sizes[] = {9, 1, 14, 23, 6, 61, 17};
  for (size_t i = 0; i < all.size(); ++i) {
    all[i].prompt_size = sizes[i];
    for (int32_t t = 0; t < sizes[i]; ++t) all[i].ids.push_back(static_cast<int32_t>(random() % 83));
    all[i].blocks.assign(blocks.begin() + static_cast<std::ptrdiff_t>(25 * i),
                         blocks.begin() + static_cast<std::ptrdiff_t>(25 * (i + 1)));
    all[i].sampling.seed = 1000 + i;
    all[i].sampling.logprobs = static_cast<int32_t>(i);
  }
  all[0].sampling.temperature = 0;
  all[0].prompt_logprobs = true;
  all[1].slot = kEverything;
  all[1].sampling.temperature = 0;
  all[1].sampling.repetition_penalty = 1.7F;
  all[2].slot = kDora;
  all[2].sampling.temperature = 0.8F;
  all[2].prompt_logprobs = true;
  all[3].sampling.top_k = 7;
  all[3].sampling.top_p = 0.8F;
  all[4].slot = kAttention;
  all[4].sampling.temperature = 1.5F;
  all[4].sampling.min_p = 0.1F;
  all[4].sampling.presence_penalty = 0.9F;
  all[4].sampling.frequency_penalty = 0.4F;
  all[5].slot = kEverything;
  all[5].prompt_logprobs = true;
  all[6].slot = kDora;
  all[6].sampling.temperature = 0;
  all[6].sampling.frequency_penalty = 1.5F;
  all[6].sampling.repetition_penalty = 0.8F;
  all[6].sampling.logprobs = 200;  // more than there are
  return all;
}

// What the sequence computes next: at most `chunk` positions.
BatchRow next_row(Sequence& s, int32_t chunk) {
  BatchRow row;
  const auto known = static_cast<int32_t>(s.ids.size());
  const int32_t count = std::min(chunk, known - s.computed);
  row.token_ids = std::span<const int32_t>(s.ids).subspan(static_cast<size_t>(s.computed), static_cast<size_t>(count));
  row.pending_row = s.pending_row;
  row.prompt_size = s.prompt_size;
  row.start = s.computed;
  row.block_table = s.blocks;
  row.slot = s.slot;
  row.sample = s.computed + count == known;
  row.sampling = s.sampling;
  s.counts.clear();
  for (int32_t id = 0; id < 83; ++id) {
    TokenCount c{id, 0, false};
    for (int32_t i = 0; i < known; ++i) {
      if (s.ids[static_cast<size_t>(i)] != id) continue;
      if (i < s.prompt_size) c.in_prompt = true;
      if (i >= s.prompt_size) ++c.in_output;
    }
    if (c.in_prompt || c.in_output > 0) s.counts.push_back(c);
  }
  row.counts = s.counts;
  s.targets.clear();
  if (s.prompt_logprobs && s.computed < s.prompt_size) {
    for (int32_t i = s.computed + 1; i <= s.computed + count; ++i)
      s.targets.push_back(i < s.prompt_size ? s.ids[static_cast<size_t>(i)] : -1);
  }
  row.logprob_targets = s.targets;
  return row;
}

void take_output(Sequence& s, const std::vector<int32_t>& targets, bool sampled, const RowOutput& output) {
  ASSERT_EQ(output.target_logprobs.size(), targets.size());
  for (size_t i = 0; i < targets.size(); ++i) {
    if (targets[i] >= 0) s.prompt_scores.push_back(output.target_logprobs[i]);
  }
  if (!sampled) return;
  s.drawn.push_back(output);
  s.ids[static_cast<size_t>(s.prompt_size) + s.drawn.size() - 1] = output.token_id;
}

// Lets every sequence draw `tokens` tokens, one step after the other, or with the next step begun before the last is
// finished. Chunks differ from step to step.
void run(Ranks& ranks, std::span<Sequence> all, size_t tokens, bool ahead) {
  struct Step {
    std::vector<Sequence*> of_row;
    std::vector<BatchRow> rows;
    std::vector<std::vector<int32_t>> targets;
  };
  std::vector<Step> steps;
  const auto finish_oldest = [&] {
    const auto outputs = ranks.finish();
    for (size_t i = 0; i < outputs.size(); ++i)
      take_output(*steps[0].of_row[i], steps[0].targets[i], steps[0].rows[i].sample, outputs[i]);
    steps.erase(steps.begin());
  };
  for (int32_t number = 0;; ++number) {
    Step step;
    for (Sequence& s : all) {
      if (s.ids.size() >= static_cast<size_t>(s.prompt_size) + tokens) continue;
      step.of_row.push_back(&s);
      step.rows.push_back(next_row(s, 3 + 5 * (number % 3)));
      step.targets.push_back(s.targets);
    }
    if (step.rows.empty()) break;
    ranks.begin(step.rows);
    for (size_t i = 0; i < step.rows.size(); ++i) {
      Sequence& s = *step.of_row[i];
      s.computed += static_cast<int32_t>(step.rows[i].token_ids.size());
      s.pending_row = -1;
      if (!step.rows[i].sample) continue;
      s.ids.push_back(kPendingToken);
      s.pending_row = static_cast<int32_t>(i);
    }
    steps.push_back(std::move(step));
    while (steps.size() > (ahead ? 1U : 0U)) finish_oldest();
  }
  while (!steps.empty()) finish_oldest();
}

// ---- The plain sampler.

std::vector<double> log_softmax(const std::vector<double>& logits) {
  const double best = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double x : logits) sum += std::exp(x - best);
  std::vector<double> result;
  for (const double x : logits) result.push_back(x - best - std::log(sum));
  return result;
}

struct ReferenceDraw {
  int32_t token_id = 0;
  double margin = 0;  // to the second best, or of the nearest filter
};

ReferenceDraw reference_draw(std::vector<double> logits, const Sequence& s, size_t position) {
  std::vector<int> in_output(logits.size());
  std::vector<bool> seen(logits.size());
  for (size_t i = 0; i < position; ++i) {
    const auto id = static_cast<size_t>(s.ids[i]);
    seen[id] = true;
    in_output[id] += i >= static_cast<size_t>(s.prompt_size) ? 1 : 0;
  }
  const RowSampling& p = s.sampling;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (seen[i]) logits[i] = logits[i] > 0 ? logits[i] / p.repetition_penalty : logits[i] * p.repetition_penalty;
    logits[i] -= p.frequency_penalty * in_output[i] + (in_output[i] > 0 ? p.presence_penalty : 0);
  }
  double margin = 1e9;
  if (p.temperature > 0) {
    for (double& x : logits) x /= p.temperature;
    std::vector<size_t> order(logits.size());  // ascending
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] < logits[b]; });
    const auto drop = [&](size_t i) { logits[i] = -INFINITY; };
    const double best = logits[order.back()];
    if (p.min_p > 0) {
      for (const size_t i : order) {
        margin = std::min(margin, std::abs(logits[i] - best - std::log(p.min_p)));
        if (std::exp(logits[i] - best) < p.min_p) drop(i);
      }
    }
    if (p.top_k > 0) {
      for (size_t i = 0; i + static_cast<size_t>(p.top_k) < order.size(); ++i) drop(order[i]);
    }
    if (p.top_p < 1) {
      const std::vector<double> scores = log_softmax(logits);
      double dropped = 0;
      for (size_t i = 0; i + 1 < order.size(); ++i) {
        dropped += std::exp(scores[order[i]]);
        margin = std::min(margin, std::abs(dropped - (1 - static_cast<double>(p.top_p))));
        if (dropped <= 1 - static_cast<double>(p.top_p)) drop(order[i]);
      }
    }
    for (size_t i = 0; i < logits.size(); ++i) {
      const uint32_t bits = kernels::noise_bits(p.seed, static_cast<int32_t>(position), static_cast<int32_t>(i));
      logits[i] -= std::log(-std::log1p(-static_cast<double>(kernels::noise_uniform(bits))));
    }
  }
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  return {static_cast<int32_t>(order[0]), std::min(margin, logits[order[0]] - logits[order[1]])};
}

void expect_reference(const ModelConfig& config, const tests::ReferenceModel& reference, const Sequence& s) {
  std::optional<Adapter> adapter;
  if (s.slot >= 0) adapter = random_adapter(config, static_cast<AdapterKind>(s.slot));
  const auto logits = reference.logits(s.ids, adapter ? &*adapter : nullptr);
  if (s.prompt_logprobs) {
    ASSERT_EQ(s.prompt_scores.size(), static_cast<size_t>(s.prompt_size) - 1);
    for (size_t i = 0; i + 1 < static_cast<size_t>(s.prompt_size); ++i) {
      EXPECT_NEAR(s.prompt_scores[i], log_softmax(logits[i])[static_cast<size_t>(s.ids[i + 1])],
                  tests::kModelTolerance);
    }
  }
  for (size_t t = 0; t < s.drawn.size(); ++t) {
    const size_t position = static_cast<size_t>(s.prompt_size) + t;
    const std::vector<double> scores = log_softmax(logits[position - 1]);
    const RowOutput& output = s.drawn[t];
    const ReferenceDraw want = reference_draw(logits[position - 1], s, position);
    if (want.margin > tests::kModelTolerance) {
      EXPECT_EQ(output.token_id, want.token_id) << "token " << t;
    }
    std::vector<double> best = scores;
    std::sort(best.rbegin(), best.rend());
    const auto k = std::min(best.size(), static_cast<size_t>(s.sampling.logprobs));
    ASSERT_GE(output.logprobs.size(), k);
    ASSERT_LE(output.logprobs.size(), k + 1);
    bool has_drawn = false;
    for (size_t i = 0; i < output.logprobs.size(); ++i) {
      const TokenProbability& token = output.logprobs[i];
      EXPECT_NEAR(token.logprob, scores[static_cast<size_t>(token.token_id)], tests::kModelTolerance);
      if (i < k) {
        EXPECT_NEAR(token.logprob, best[i], tests::kModelTolerance);
      }
      has_drawn |= token.token_id == output.token_id;
    }
    EXPECT_TRUE(has_drawn);
  }
}

void expect_same_bits(const Sequence& got, const Sequence& want) {
  EXPECT_EQ(got.ids, want.ids);
  EXPECT_EQ(got.prompt_scores, want.prompt_scores);
  ASSERT_EQ(got.drawn.size(), want.drawn.size());
  for (size_t i = 0; i < got.drawn.size(); ++i) {
    ASSERT_EQ(got.drawn[i].logprobs.size(), want.drawn[i].logprobs.size());
    for (size_t j = 0; j < got.drawn[i].logprobs.size(); ++j) {
      EXPECT_EQ(got.drawn[i].logprobs[j].token_id, want.drawn[i].logprobs[j].token_id);
      EXPECT_EQ(got.drawn[i].logprobs[j].logprob, want.drawn[i].logprobs[j].logprob);
    }
  }
}

class CpuModelBatch : public testing::TestWithParam<std::tuple<Architecture, int>> {
 protected:
  const ModelConfig config_ = small_config(std::get<0>(GetParam()));
  const int ranks_ = std::get<1>(GetParam());
  static constexpr size_t kTokens = 9;
};

TEST_P(CpuModelBatch, AgreesWithAPlainModelAndSamplerForSequencesOfEveryKindTogether) {
  const auto plan = ShardPlan::make(config_, 1).value();
  const tests::ReferenceModel reference(config_, weights_of(plan, 0));
  Ranks ranks(config_, ranks_, 1);
  std::vector<Sequence> all = sequences();
  run(ranks, all, kTokens, false);
  for (size_t i = 0; i < all.size(); ++i) {
    SCOPED_TRACE("sequence " + std::to_string(i));
    expect_reference(config_, reference, all[i]);
  }
}

TEST_P(CpuModelBatch, GivesASequenceTheSameBitsAloneTogetherAndAhead) {
  Ranks ranks(config_, ranks_, 2);
  std::vector<Sequence> together = sequences(), alone = sequences(), ahead = sequences();
  run(ranks, together, kTokens, false);
  for (Sequence& s : alone) run(ranks, {&s, 1}, kTokens, false);
  run(ranks, ahead, kTokens, true);
  for (size_t i = 0; i < together.size(); ++i) {
    SCOPED_TRACE("sequence " + std::to_string(i));
    expect_same_bits(alone[i], together[i]);
    expect_same_bits(ahead[i], together[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, CpuModelBatch,
                         testing::Combine(testing::Values(Architecture::qwen2, Architecture::qwen3),
                                          testing::Values(1, 2, 4)));

TEST(CpuModel, RefusesASlotThatIsNotThere) {
  const ModelConfig config = small_config(Architecture::qwen2);
  Ranks ranks(config, 1, 1);
  const auto set = ranks.model(0).set_adapter(kAdapters, random_adapter(config, kAttention));
  ASSERT_FALSE(set.has_value());
  EXPECT_EQ(set.error().message, "adapter adapter 2 was sent to slot 3, but there are 3");
}

TEST(CpuModel, RefusesADoraAdapterWithoutItsFactors) {
  const ModelConfig config = small_config(Architecture::qwen2);
  Ranks ranks(config, 1, 1);
  EXPECT_FALSE(ranks.model(0).set_adapter(0, random_adapter(config, kDora)).has_value());
}

TEST(CpuModel, RefusesWeightsOfAnotherNumberOfLayersAndACacheThatHoldsNothing) {
  const auto plan = ShardPlan::make(small_config(Architecture::qwen2), 1).value();
  RankModelOptions options;
  RankWeights weights = weights_of(plan, 0);
  weights.layers.pop_back();
  const std::shared_ptr<comm::Collective> group = std::move(comm::make_local_group(1)[0]);
  EXPECT_FALSE(make_cpu_model(std::move(weights), plan, options, group).has_value());
  options.num_blocks = 0;
  EXPECT_FALSE(make_cpu_model(weights_of(plan, 0), plan, options, group).has_value());
}

TEST(CpuModel, ThrowsTheErrorOfALostPeer) {
  const ModelConfig config = small_config(Architecture::qwen2);
  const auto plan = ShardPlan::make(config, 2).value();
  auto groups = comm::make_local_group(2);
  auto model = make_cpu_model(weights_of(plan, 0), plan, {}, std::move(groups[0])).value();
  groups[1].reset();
  Sequence s = sequences()[0];
  const BatchRow row = next_row(s, 4);
  EXPECT_THROW(model->begin_step({&row, 1}), comm::CollectiveError);
}

}  // namespace
}  // namespace lorikeet::model
