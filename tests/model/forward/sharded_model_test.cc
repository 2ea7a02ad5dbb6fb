// Random checkpoints with random adapters, read from disk, cut over 1, 2, 4 and 8 ranks and run, against an unsharded
// float64 forward pass. A failure names its case. Other cases: --gtest_shuffle --gtest_random_seed=N --gtest_repeat=M
// takes kCases new ones from each of the M seeds N, N + 1, ...
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>
#include <thread>

#include "comm/collective/group.h"
#include "model/checkpoint/weights.h"
#include "model/forward/rank_model.h"
#include "tests/model/forward/random_case.h"
#include "tests/tolerance.h"

namespace lorikeet::model {
namespace {

constexpr int kCases = 24;

std::vector<double> log_softmax(const std::vector<double>& logits) {
  double total = 0;
  for (const double value : logits) total += std::exp(value);
  std::vector<double> result;
  for (const double value : logits) result.push_back(value - std::log(total));
  return result;
}

// What a rank says of one sequence: the log-probabilities of its tokens from the second on, and of every token that may
// follow.
struct Scores {
  std::vector<float> of_prompt;
  std::vector<TokenProbability> of_next;
};

// One rank from the files to the scores of `ids`, the base's and the adapter's, side by side and in two chunks.
class Rank {
 public:
  Rank(const tests::RandomCase& random, const ShardPlan& plan, comm::Collective& group,
       std::shared_ptr<RankModel> model)
      : random_(random), plan_(plan), group_(group), model_(std::move(model)) {}

  // Packed as the head hands it over, or as stored where it is a DoRA.
  void load_adapter() {
    const Adapter whole = read_adapter(random_.adapter_dir(), plan_.config()).value();
    if (!whole.uses_dora()) return load_packed(whole);
    Adapter part =
        decode_adapter(encode_adapter(cut_adapter(whole, plan_, group_.rank())), plan_, group_.rank()).value();
    const auto norms = model_->dora_squared_norms(part);
    size_t at = 0;
    for (LoraLayer& layer : part.layers) {
      for (const Projection p : kProjections) {
        auto& pair = layer[static_cast<size_t>(p)];
        if (!pair) continue;
        std::vector<float> squares = norms.at(at++);
        if (pair->magnitude.empty()) continue;
        if (is_row_parallel(p)) group_.all_reduce(squares.data(), squares.size());
        for (size_t i = 0; i < squares.size(); ++i) {
          pair->dora_factor.push_back(pair->magnitude.at(i) / std::sqrt(squares[i]));
        }
      }
    }
    ASSERT_TRUE(model_->set_adapter(0, part).has_value());
  }

  void load_packed(const Adapter& whole) {
    std::vector<AdapterSlice> slices;
    std::vector<std::shared_ptr<std::vector<uint8_t>>> bytes;
    std::vector<uint8_t*> to;
    for (int rank = 0; rank < plan_.size(); ++rank) {
      slices.push_back(plan_slice(whole, plan_, rank, model_->slice_layout()));
      bytes.push_back(std::make_shared<std::vector<uint8_t>>(slices.back().bytes));
      to.push_back(bytes.back()->data());
    }
    ASSERT_TRUE(write_slices(whole, plan_, slices, to, 2));
    const auto own = static_cast<size_t>(group_.rank());
    const auto read = read_slice(*bytes[own], plan_, group_.rank(), model_->slice_layout());
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_FALSE(model_->set_slice(1, *read, {to[own], bytes[own]})) << "there is one slot";
    ASSERT_TRUE(model_->set_slice(0, *read, {to[own], bytes[own]}));
  }

  std::vector<Scores> scores(const std::vector<int32_t>& ids) {
    std::vector<int32_t> targets(ids.begin() + 1, ids.end());
    targets.push_back(-1);
    std::vector<int32_t> blocks(2 * kBlocks);
    std::iota(blocks.begin(), blocks.end(), 0);
    std::vector<Scores> result(2);
    const size_t cut = ids.size() / 3;
    for (const auto& [begin, end] : {std::pair(size_t{0}, cut), std::pair(cut, ids.size())}) {
      std::vector<BatchRow> rows;
      for (int32_t slot = -1; slot <= 0; ++slot) {
        BatchRow row;
        row.token_ids = std::span(ids).subspan(begin, end - begin);
        row.logprob_targets = std::span<const int32_t>(targets).subspan(begin, end - begin);
        row.prompt_size = static_cast<int32_t>(ids.size());
        row.start = static_cast<int32_t>(begin);
        row.block_table = std::span<const int32_t>(blocks).subspan(slot < 0 ? 0 : kBlocks, kBlocks);
        row.slot = slot;
        row.sample = end == ids.size();
        row.sampling.temperature = 0;
        row.sampling.logprobs = plan_.config().vocab_size;
        rows.push_back(row);
      }
      model_->begin_step(rows);
      const auto outputs = model_->finish_step();
      for (size_t i = 0; i < 2; ++i) {
        const auto& part = outputs[i].target_logprobs;
        result[i].of_prompt.insert(result[i].of_prompt.end(), part.begin(), part.end());
        result[i].of_next = outputs[i].logprobs;
      }
    }
    for (Scores& scores : result) scores.of_prompt.pop_back();  // of the target -1
    return result;
  }

  static constexpr int32_t kBlockSize = 4;
  static constexpr size_t kBlocks = 24;  // of one sequence

 private:
  const tests::RandomCase& random_;
  const ShardPlan& plan_;
  comm::Collective& group_;
  const std::shared_ptr<RankModel> model_;
};

// The scores of every rank of a group of `size`.
std::vector<std::vector<Scores>> run(const tests::RandomCase& random, const std::vector<int32_t>& ids, int size) {
  const ModelConfig config = read_model_config(random.checkpoint_dir()).value();
  const auto plan = ShardPlan::make(config, size).value();
  std::vector<std::shared_ptr<comm::Collective>> groups;
  for (auto& end : comm::make_local_group(size)) groups.push_back(std::move(end));
  std::vector<std::vector<Scores>> scores(groups.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < groups.size(); ++i) {
    threads.emplace_back([&, i] {
      RankModelOptions options;
      options.block_size = Rank::kBlockSize;
      options.num_blocks = 2 * Rank::kBlocks;
      options.num_slots = 1;
      auto weights = load_rank_weights(random.checkpoint_dir(), plan, static_cast<int>(i)).value();
      std::shared_ptr<RankModel> model = make_cpu_model(std::move(weights), plan, options, groups[i]).value();
      Rank rank(random, plan, *groups[i], model);
      rank.load_adapter();
      scores[i] = rank.scores(ids);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return scores;
}

void expect_near(const Scores& got, const tests::ReferenceModel::Rows& logits, const std::vector<int32_t>& ids) {
  ASSERT_EQ(got.of_prompt.size() + 1, ids.size());
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    ASSERT_NEAR(got.of_prompt[i], log_softmax(logits[i])[static_cast<size_t>(ids[i + 1])], tests::kModelTolerance)
        << "position " << i + 1;
  }
  const std::vector<double> next = log_softmax(logits.back());
  ASSERT_EQ(got.of_next.size(), next.size());
  for (const TokenProbability& token : got.of_next) {
    ASSERT_NEAR(token.logprob, next[static_cast<size_t>(token.token_id)], tests::kModelTolerance)
        << "token " << token.token_id << " after the prompt";
  }
}

class ShardedModel : public testing::TestWithParam<int> {};

TEST_P(ShardedModel, EqualsAnUnshardedFloat64ForwardPassAtEveryTensorParallelSize) {
  const int seed = testing::UnitTest::GetInstance()->random_seed() * kCases + GetParam();
  tests::RandomCase random(static_cast<uint32_t>(seed));
  SCOPED_TRACE(random.description());
  const std::vector<int32_t> ids = random.prompt();
  const tests::ReferenceModel reference(random.config(), random.weights());
  const auto base = reference.logits(ids, nullptr, ids.size());
  const auto adapted = reference.logits(ids, &random.adapter(), ids.size());
  for (const int size : random.sizes()) {
    SCOPED_TRACE("tensor-parallel size " + std::to_string(size));
    for (const std::vector<Scores>& scores : run(random, ids, size)) {
      ASSERT_EQ(scores.size(), 2u);
      expect_near(scores[0], base, ids);
      expect_near(scores[1], adapted, ids);
      if (HasFatalFailure()) return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Random, ShardedModel, testing::Range(0, kCases));

}  // namespace
}  // namespace lorikeet::model
