// What head, ranks and supervisor say to each other, read by each of them. The first byte picks the reader:
//   - the messages of actors/wire/{wire,control_message,host_message}.h: what decodes must encode to what decodes to
//     the same; so it is with plans and results (actors/wire/step_codec.h)
//   - parts of envelopes, put together again
//   - the control channel's frames
//   - ranks that speak to the head: its group and its plans in flight survive whatever they say
//   - a head that speaks to a rank: whatever the plans say, the model is given rows that it may compute
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "actors/head/grammar_book.h"
#include "actors/head/in_flight_plans.h"
#include "actors/head/rank_group.h"
#include "actors/rank/step_executor.h"
#include "actors/wire/checkpoint_message.h"
#include "actors/wire/control_channel.h"
#include "actors/wire/control_message.h"
#include "actors/wire/envelope.h"
#include "actors/wire/host_message.h"
#include "actors/wire/step_codec.h"
#include "actors/wire/wire.h"
#include "comm/codec/codec.h"
#include "engine/step_plan.h"
#include "model/forward/rank_model.h"

namespace lorikeet::actors {
namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

template <class T>
void require_sentence(const Result<T>& result) {
  require(result || !result.error().message.empty());
}

// The input, taken from the front; zeros and empty spans once it is used up.
class Input {
 public:
  explicit Input(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  bool empty() const { return bytes_.empty(); }
  uint8_t byte() {
    const auto taken = take(1);
    return taken.empty() ? uint8_t{0} : taken[0];
  }
  std::span<const uint8_t> take(size_t size) {
    size = std::min(size, bytes_.size());
    const auto taken = bytes_.first(size);
    bytes_ = bytes_.subspan(size);
    return taken;
  }
  // A length of two bytes and as many bytes.
  std::span<const uint8_t> piece() {
    const size_t low = byte();
    return take(low | size_t{byte()} << 8);
  }
  std::span<const uint8_t> rest() { return take(bytes_.size()); }

 private:
  std::span<const uint8_t> bytes_;
};

template <class T>
void round_trip(std::span<const uint8_t> bytes) {
  const Result<T> value = comm::decode<T>(bytes);
  require_sentence(value);
  if (!value) return;
  const std::vector<uint8_t> encoded = comm::encode(*value);
  const Result<T> again = comm::decode<T>(encoded);
  require(again && comm::encode(*again) == encoded);
}

// Several encodings of a step mean the same, and so a second one is compared with the first one that we wrote.
template <class Decode, class Encode>
void round_trip_of_a_step(Decode decode, Encode encode, std::span<const uint8_t> bytes) {
  const auto value = decode(bytes);
  require_sentence(value);
  if (!value) return;
  const std::vector<uint8_t> encoded = encode(*value);
  const auto again = decode(encoded);
  require(again && encode(*again) == encoded);
}

void assemble(Input input) {
  EnvelopeAssembler assembler;
  std::array<std::vector<uint8_t>, kEnvelopeStreams> expected;
  std::array<uint64_t, kEnvelopeStreams> steps{};  // of what was collected
  while (!input.empty()) {
    Envelope envelope;
    envelope.stream = static_cast<EnvelopeStream>(input.byte());
    const uint8_t what = input.byte();
    envelope.last = what % 2 == 0;
    envelope.step = what / 2 % 4;
    const auto bytes = input.piece();
    envelope.bytes.assign(bytes.begin(), bytes.end());
    const auto stream = static_cast<size_t>(envelope.stream);
    const bool last = envelope.last;
    const uint64_t step = envelope.step;
    const auto whole = assembler.add(std::move(envelope));
    require_sentence(whole);
    if (stream >= kEnvelopeStreams) {
      require(!whole);
      continue;
    }
    require(whole.has_value() == (expected[stream].empty() || steps[stream] == step));
    if (!whole) {
      expected[stream].clear();
      continue;
    }
    steps[stream] = step;
    expected[stream].insert(expected[stream].end(), bytes.begin(), bytes.end());
    require(whole->has_value() == last);
    if (last) require(**whole == std::exchange(expected[stream], {}));
  }
}

void read_channel(Input input) {
  const bool is_child = input.byte() % 2 == 0;
  const auto read_one = [is_child](ControlChannel& channel) {
    const auto next = [](const auto& message) {
      require_sentence(message);
      return message && *message;
    };
    return is_child ? next(channel.receive_order()) : next(channel.receive_report());
  };
  const auto ends = ControlChannel::make_pair();
  require(ends.has_value());
  ControlChannel channel(ends->second);
  const auto bytes = input.rest();
  if (send(ends->first, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) require(bytes.empty());
  close(ends->first);
  if (is_child) {
    const auto start = channel.receive_start();
    require_sentence(start);
    if (!start || !*start) return;
  }
  while (read_one(channel)) {
  }
}

// A step of a new sequence, which asks for log-probabilities where the step is even.
engine::StepPlan plan_of(uint64_t step) {
  engine::StepPlan plan;
  plan.epoch = engine::Epoch(1);
  plan.step = engine::StepId(step);
  engine::SequenceStart start;
  start.id = engine::SequenceId(step);
  start.token_ids = {1, 2};
  start.prompt_size = 2;
  start.sampling.logprobs = step % 2 == 0 ? 2 : -1;
  plan.starts.push_back(start);
  plan.rows.push_back({start.id, 0, 2, true});
  return plan;
}

// Two ranks; the head sends a plan of one row whenever fewer than two are out.
void hear_ranks(Input input) {
  constexpr int32_t kVocabSize = 1000;
  RankGroup group(2, 1);
  InFlightPlans plans(2, kVocabSize);
  GrammarBook grammars(2);
  grammars.group_serves();
  uint64_t step = 0;
  while (!input.empty()) {
    const uint8_t what = input.byte();
    const auto rank = static_cast<int32_t>(input.byte()) - 1;
    if (what % 4 == 0) {
      require_sentence(group.admit(rank, 7, 1, "host", "cpu"));
    } else if (what % 4 == 1) {
      const auto report = comm::decode<GroupReport>(input.piece());
      require_sentence(report);
      if (!report) continue;
      if (const auto* compiled = std::get_if<GrammarCompiled>(&*report)) {
        grammars.take_orders({});
        require_sentence(grammars.answered(rank, *compiled, {}));
        continue;
      }
      const auto* loaded = std::get_if<RankLoaded>(&*report);
      require_sentence(loaded != nullptr ? group.loaded(rank, *loaded) : group.ready(rank));
      if (group.all_loaded()) require(group.num_blocks() > 0);
    } else if (what % 4 == 2) {
      require_sentence(group.ready(rank));
    } else {
      while (plans.size() < 2) plans.sent(plan_of(++step), {});
      auto result = decode_result(input.piece());
      require_sentence(result);
      if (!result) continue;
      result->rank = rank;
      const auto ok = plans.add(*std::move(result));
      require_sentence(ok);
      if (!ok) return;  // the group is given up
      while (const auto agreed = plans.take_agreed({})) require(agreed->rows.size() == 1);
    }
  }
}

constexpr int32_t kBlockSize = 2, kNumBlocks = 8, kNumSlots = 2;

// Requires of every row what RankModel promises its implementations.
class StrictModel final : public model::RankModel {
 public:
  Result<void> set_adapter(int32_t, const model::Adapter&) override { return {}; }
  Result<void> set_slice(int32_t, const model::AdapterSlice&, model::SliceBytes) override { return {}; }
  void clear_adapter(int32_t) override {}
  std::vector<std::vector<float>> dora_squared_norms(const model::Adapter&) override { return {}; }
  bool step_ready() override { return true; }
  uint64_t kv_block_bytes() const override { return 1; }

  void begin_step(std::span<const model::BatchRow> rows) override {
    std::vector<Row> step;
    for (const model::BatchRow& row : rows) {
      const size_t count = row.token_ids.size();
      require(count > 0 && row.start >= 0);
      for (const int32_t id : row.token_ids) require(id >= 0 || (id == model::kPendingToken && count == 1));
      if (row.token_ids[0] == model::kPendingToken) {
        require(!steps_.empty() && row.pending_row >= 0);
        require(static_cast<size_t>(row.pending_row) < steps_.back().size());
        require(steps_.back()[static_cast<size_t>(row.pending_row)].sample);
      }
      const size_t end = static_cast<size_t>(row.start) + count;
      require(row.block_table.size() * kBlockSize >= end);
      for (const int32_t block : row.block_table) require(block >= 0 && block < kNumBlocks);
      require(row.slot >= -1 && row.slot < kNumSlots);
      require(row.logprob_targets.empty() || row.logprob_targets.size() == count);
      for (size_t i = 1; i < row.counts.size(); ++i) require(row.counts[i - 1].token_id < row.counts[i].token_id);
      step.push_back({row.sample, row.logprob_targets.size()});
    }
    steps_.push_back(std::move(step));
  }
  std::vector<model::RowOutput> finish_step() override {
    std::vector<model::RowOutput> outputs(steps_.front().size());
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (steps_.front()[i].sample) outputs[i].token_id = 5;
      outputs[i].target_logprobs.resize(steps_.front()[i].num_targets);
    }
    steps_.pop_front();
    return outputs;
  }

 private:
  struct Row {
    bool sample = false;
    size_t num_targets = 0;
  };
  std::deque<std::vector<Row>> steps_;
};

void execute_plans(Input input) {
  StrictModel model;
  StepExecutor executor(model, 0, kBlockSize, kNumBlocks, kNumSlots);
  while (!input.empty()) {
    const bool finish = input.byte() % 2 == 0;
    const auto plan = decode_plan(input.piece());
    require_sentence(plan);
    if (!plan) return;
    const auto begun = executor.begin(*plan);
    require_sentence(begun);
    if (!begun) return;  // told in a result, and the rank takes no more plans
    while (executor.in_flight() == static_cast<size_t>(model::RankModel::kMaxStepsInFlight) ||
           (finish && executor.in_flight() > 0)) {
      const auto result = executor.finish();
      require(result.has_value());
    }
  }
}

void read(Input input) {
  switch (input.byte() % 18) {
    case 0:
      return round_trip<GroupOrder>(input.rest());
    case 1:
      return round_trip<GroupReport>(input.rest());
    case 2:
      return round_trip<AdapterOrder>(input.rest());
    case 3:
      return round_trip<AdapterReport>(input.rest());
    case 4:
      return round_trip<ChildOrder>(input.rest());
    case 5:
      return round_trip<ChildReport>(input.rest());
    case 6:
      return round_trip<ChildStart>(input.rest());
    case 7:
      return assemble(input);
    case 8:
      return read_channel(input);
    case 9:
      return hear_ranks(input);
    case 10:
      return execute_plans(input);
    case 11:
      return round_trip<JoinRequest>(input.rest());
    case 12:
      return round_trip<HostOrder>(input.rest());
    case 13:
      return round_trip<HostReport>(input.rest());
    case 14:
      return round_trip<CheckpointRequest>(input.rest());
    case 15:
      return round_trip<CheckpointAnswer>(input.rest());
    case 16:
      return round_trip_of_a_step(decode_plan, encode_plan, input.rest());
    default:
      return round_trip_of_a_step(decode_result, encode_result, input.rest());
  }
}

}  // namespace
}  // namespace lorikeet::actors

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  lorikeet::actors::read(lorikeet::actors::Input({data, size}));
  return 0;
}
