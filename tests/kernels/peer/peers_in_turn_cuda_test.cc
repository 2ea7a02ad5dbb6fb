// Sums, norms and gathers of ranks that run one after the other. What the ranks behind it would send lies in a rank's inbox
// before its kernel begins, so that no kernel waits for another: tools that let one kernel run at a time see all of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>

#include "kernels/layer/rms_norm_cuda.h"
#include "kernels/peer/peer_sum_cuda.h"
#include "kernels/peer/two_shot_plan.h"
#include "tests/kernels/base/cuda_test.h"

namespace lorikeet::kernels {
namespace {

using Bytes = std::vector<unsigned char>;

constexpr unsigned char kNotSent = 0xff;  // every byte of what has not been sent
constexpr uint64_t kVectorBytes = 16;
constexpr uint64_t kLongNs = 5'000'000'000;  // nothing waits: only what is wrong takes so long

Bytes stored(const std::vector<float>& values, Dtype dtype) {
  Bytes bytes(values.size() * size_of(dtype));
  for (size_t i = 0; i < values.size(); i++) {
    if (dtype == Dtype::f32) {
      std::memcpy(bytes.data() + i * sizeof(float), &values[i], sizeof(float));
    } else {
      const uint16_t half = to_stored(values[i], dtype);
      std::memcpy(bytes.data() + i * sizeof half, &half, sizeof half);
    }
  }
  return bytes;
}

// What every rank adds, and the sum: added in float in the order of the ranks, rounded once.
struct Parts {
  std::vector<Bytes> of_rank;
  Bytes sum;
};

class PeersInTurn : public CudaTest, public ::testing::WithParamInterface<int32_t> {
 protected:
  // `most_blocks`: few, so that each has several rounds.
  void meet(int32_t most_blocks, uint64_t most_ns = kLongNs) {
    const int32_t ranks = GetParam();
    ranks_.resize(static_cast<size_t>(ranks));
    words_ = std::move(*PinnedBuffer::allocate(2 * sizeof(uint32_t), "a test"));
    std::fill_n(words_.as<uint32_t>(), 2, 0U);
    for (Rank& rank : ranks_) {
      // As clear_peer_inbox has it, in memory of this process alone, whose ends a memory checker knows.
      rank.inbox = poisoned(peer_inbox_bytes(ranks));
      rank.turns = zeroed(peer_turns_bytes());
    }
    for (size_t r = 0; r < ranks_.size(); r++) {
      PeerGroup& group = ranks_[r].group;
      group.rank = static_cast<int32_t>(r);
      group.ranks = ranks;
      for (size_t other = 0; other < ranks_.size(); other++) {
        group.inboxes[other] = ranks_[other].inbox.as<unsigned char>();
      }
      group.turns = ranks_[r].turns.as<PeerTurns>();
      group.abort = words_.as<uint32_t>();
      group.failure = words_.as<uint32_t>() + 1;
      group.most_ns = most_ns;
      group.most_blocks = most_blocks;
    }
  }
  size_t size() const { return ranks_.size(); }
  const PeerGroup& group(size_t rank) const { return ranks_.at(rank).group; }
  PeerFailure failure() const { return static_cast<PeerFailure>(words_.as<uint32_t>()[1]); }

  Parts random_parts(size_t count, Dtype dtype) {
    Parts parts;
    std::vector<float> sum;
    for (size_t r = 0; r < size(); r++) {
      std::vector<float> values = random_floats(count, random_);
      if (dtype != Dtype::f32) {
        for (float& value : values) value = to_value(to_stored(value, dtype), dtype);
      }
      parts.of_rank.push_back(stored(values, dtype));
      for (size_t i = 0; i < count && r > 0; i++) sum[i] += values[i];
      if (r == 0) sum = std::move(values);
    }
    parts.sum = stored(sum, dtype);
    return parts;
  }

  // Where `sender` writes in `owner`'s inbox (kernels/peer/peer_inbox.cuh): three parts, used in turn, each with a place
  // for every other rank; behind them two of gathers, each with a place for every rank.
  unsigned char* sum_place(size_t owner, uint32_t turn, size_t sender) const {
    const size_t place = turn * (size() - 1) + (sender < owner ? sender : sender - 1);
    return group(owner).inboxes[owner] + place * peer_place_bytes(static_cast<int32_t>(size()));
  }
  unsigned char* gather_place(size_t owner, uint32_t turn, size_t sender) const {
    const uint64_t sums = 3 * (size() - 1) * peer_place_bytes(static_cast<int32_t>(size()));
    return group(owner).inboxes[owner] + sums + (turn % 2 * size() + sender) * 2 * kMostPeerGatherBytes;
  }
  Bytes read(const unsigned char* from, size_t bytes) const {
    Bytes text(bytes);
    copy_to_host(text.data(), from, bytes, stream_);
    stream_.synchronize();
    return text;
  }

  // Runs `launch(rank)` for one rank after the other. sent(sender, owner): what the place has when both have run. What the
  // ranks behind have put into a rank's inbox beforehand is taken out again when it has run: at the end all is of the
  // kernels' sending.
  using Sent = std::function<Bytes(size_t, size_t)>;
  using Place = std::function<unsigned char*(size_t, size_t)>;
  void run_in_turn(const Place& place, const Sent& sent, const std::function<void(size_t)>& launch) {
    for (size_t owner = 0; owner < size(); owner++) {
      for (size_t sender = owner + 1; sender < size(); sender++) {
        const Bytes text = sent(sender, owner);
        copy_to_device(place(owner, sender), text.data(), text.size(), stream_);
      }
      launch(owner);
      for (size_t sender = owner + 1; sender < size(); sender++) {
        fill_bytes(place(owner, sender), kNotSent, sent(sender, owner).size(), stream_);
      }
    }
    stream_.synchronize();
    ASSERT_EQ(failure(), PeerFailure::none);
    for (size_t owner = 0; owner < size(); owner++) {
      for (size_t sender = 0; sender < size(); sender++) {
        if (sender == owner) continue;
        const Bytes wanted = sent(sender, owner);
        EXPECT_EQ(read(place(owner, sender), wanted.size()), wanted)
            << "rank " << sender << " to rank " << owner << " of " << size();
      }
    }
  }
  // The same of a sum, which also makes ready the part that the one before it used.
  void run_sum(const Sent& sent, const std::function<void(size_t)>& launch) {
    const auto place = [&](size_t owner, size_t sender) { return sum_place(owner, turn_, sender); };
    run_in_turn(place, sent, launch);
    for (size_t owner = 0; owner < size(); owner++) {
      for (size_t sender = 0; sender < size(); sender++) {
        if (sender == owner) continue;
        EXPECT_EQ(read(sum_place(owner, (turn_ + 2) % 3, sender), last_used_), Bytes(last_used_, kNotSent))
            << "rank " << owner << " of " << size() << " left words of the sum before";
      }
    }
    turn_ = (turn_ + 1) % 3;
    last_used_ = sent(0, 1).size();
  }

  // In one shot: the part, in whole vectors.
  static Sent in_one_shot(const Parts& parts) {
    return [&parts](size_t sender, size_t) {
      Bytes text = parts.of_rank[sender];
      text.resize((text.size() + kVectorBytes - 1) / kVectorBytes * kVectorBytes);
      return text;
    };
  }
  // In two: the parts of the owner's chunks, and the sums of the sender's.
  static Sent in_two_shots(const Parts& parts, const TwoShotPlan& plan) {
    return [&parts, plan](size_t sender, size_t owner) {
      Bytes text(plan.place_bytes(), kNotSent);
      const size_t row_bytes = parts.sum.size() / static_cast<size_t>(plan.rows);
      const auto chunk_bytes = static_cast<size_t>(plan.chunk_bytes);
      for (int32_t row = 0; row < plan.rows; row++) {
        for (int32_t chunk = 0; chunk < plan.chunks; chunk++) {
          const auto copy = [&](const Bytes& from, uint64_t at) {
            const size_t begin = static_cast<size_t>(chunk) * chunk_bytes;
            const size_t bytes = std::min(chunk_bytes, row_bytes - begin);
            const auto first = from.begin() + static_cast<int64_t>(static_cast<size_t>(row) * row_bytes + begin);
            Bytes words(first, first + static_cast<int64_t>(bytes));
            words.resize((bytes + kVectorBytes - 1) / kVectorBytes * kVectorBytes);
            std::copy(words.begin(), words.end(), text.begin() + static_cast<int64_t>(at + plan.offset(row, chunk)));
          };
          if (plan.owner(chunk) == static_cast<int32_t>(owner)) copy(parts.of_rank[sender], 0);
          if (plan.owner(chunk) == static_cast<int32_t>(sender)) copy(parts.sum, plan.first_sum());
        }
      }
      return text;
    };
  }
  // As the kernels cut a tensor, and rows of halves with the norm behind.
  TwoShotPlan plan_of_tensor(size_t bytes) const {
    return {static_cast<int32_t>(size()), 1, static_cast<int32_t>((bytes + 511) / 512), 512};
  }
  TwoShotPlan plan_of_rows(int32_t rows, int32_t width) const {
    return {static_cast<int32_t>(size()), rows, (width + 127) / 128, 256};
  }

  using SumKernel = void (*)(const PeerGroup&, void*, uint64_t, Dtype, const Stream&);
  void expect_sum(size_t count, Dtype dtype, bool two_shots) {
    SCOPED_TRACE(fmt::format("{} {} of {} ranks", count, name_of(dtype), size()));
    const SumKernel kernel = two_shots ? peer_two_shot_sum_cuda : peer_sum_cuda;
    const Parts parts = random_parts(count, dtype);
    std::vector<DeviceBuffer> data;
    for (const Bytes& part : parts.of_rank) data.push_back(to_device(part));
    run_sum(two_shots ? in_two_shots(parts, plan_of_tensor(parts.sum.size())) : in_one_shot(parts),
            [&](size_t rank) { kernel(group(rank), data[rank].data(), count, dtype, stream_); });
    for (const DeviceBuffer& sum : data) EXPECT_EQ(to_host<unsigned char>(sum), parts.sum);
  }

  using NormKernel = void (*)(const PeerGroup&, const AddRmsNormArgs&, const Stream&);
  void expect_norm(int32_t tokens, int32_t width, Dtype dtype, bool two_shots) {
    SCOPED_TRACE(fmt::format("{} rows of {} {}, {} ranks", tokens, width, name_of(dtype), size()));
    const NormKernel kernel = two_shots ? peer_two_shot_norm_cuda : peer_sum_norm_cuda;
    const size_t count = static_cast<size_t>(tokens) * static_cast<size_t>(width);
    const Parts parts = random_parts(count, dtype);
    const std::vector<float> before = random_floats(count, random_, 3);
    const DeviceBuffer weight = to_device(random_floats(static_cast<size_t>(width), random_, 0.3F, 1));
    const bool in_place = tokens % 2 == 1;
    struct Row {
      DeviceBuffer residual, elsewhere, delta, out, done;
    };
    const auto make_row = [&](const Bytes& delta) {
      return Row{to_device(before), poisoned(count * sizeof(float)), to_device(delta), poisoned(count * 2),
                 zeroed(sizeof(uint32_t))};
    };
    const auto args_of = [&](const Row& row) {
      AddRmsNormArgs args;
      args.residual = row.residual.as<float>();
      args.residual_out = in_place ? nullptr : row.elsewhere.as<float>();
      args.delta = row.delta.data();
      args.weight = weight.as<float>();
      args.epsilon = 1e-6F;
      args.out = row.out.data();
      args.dtype = dtype;
      args.tokens = tokens;
      args.width = width;
      args.done = in_place ? row.done.as<uint32_t>() : nullptr;
      return args;
    };
    std::vector<Row> rows;
    for (const Bytes& part : parts.of_rank) rows.push_back(make_row(part));
    run_sum(two_shots ? in_two_shots(parts, plan_of_rows(tokens, width)) : in_one_shot(parts),
            [&](size_t rank) { kernel(group(rank), args_of(rows[rank]), stream_); });
    const Row expected = make_row(parts.sum);
    add_rms_norm_cuda(args_of(expected), stream_);
    for (const Row& row : rows) {
      EXPECT_EQ(to_host<uint16_t>(row.out), to_host<uint16_t>(expected.out));
      EXPECT_EQ(to_host<uint32_t>(row.residual), to_host<uint32_t>(expected.residual));
      EXPECT_EQ(to_host<uint32_t>(row.elsewhere), to_host<uint32_t>(expected.elsewhere));
      EXPECT_EQ(to_host<uint32_t>(row.done), to_host<uint32_t>(expected.done));
    }
  }

  std::mt19937 random_{7};

 private:
  struct Rank {
    DeviceBuffer inbox, turns;
    PeerGroup group;
  };
  std::vector<Rank> ranks_;
  PinnedBuffer words_;
  uint32_t turn_ = 0;     // of sums
  size_t last_used_ = 0;  // bytes of a place, by the sum before
};

TEST_P(PeersInTurn, SumInOneShot) {
  meet(2);
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16, Dtype::f32}) {
    for (const size_t count : sizes<size_t>({1, 7, 9, 2055, 20'483}, {7, 9, 10'243})) expect_sum(count, dtype, false);
  }
}

TEST_P(PeersInTurn, SumInTwoShots) {
  meet(1);
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16, Dtype::f32}) {
    for (const size_t count : {256 * size(), size_t{2'305}, usual_or_few<size_t>(20'483, 10'243)}) {
      expect_sum(count, dtype, true);
    }
  }
}

TEST_P(PeersInTurn, MakeTheNormBehindOneShot) {
  meet(2);
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16}) {
    for (const int32_t width : {264, 2056, 5120, 8192}) {
      for (const int32_t tokens : sizes({1, 2, 7}, {2, 5})) expect_norm(tokens, width, dtype, false);
    }
  }
}

TEST_P(PeersInTurn, MakeTheNormBehindTwoShots) {
  meet(1);
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16}) {
    for (const int32_t width : {1032, 5120, 8192}) {
      for (const int32_t tokens : sizes({1, 2, 7}, {2, 5})) expect_norm(tokens, width, dtype, true);
    }
  }
}

TEST_P(PeersInTurn, TakeOneShotAndTwoInAnyOrder) {
  meet(2);
  for (int i = 0; i < 6; i++) {
    expect_sum(5'123 + static_cast<size_t>(i), Dtype::f16, i % 2 == 1);
    expect_norm(3, 2056, Dtype::bf16, i % 3 == 0);
  }
}

TEST_P(PeersInTurn, GatherAnyBits) {
  meet(2);
  uint32_t turn = 0;
  for (const size_t words : sizes<size_t>({1, 5, 1'001, 4'096, 3}, {5, 1'001, 3})) {
    SCOPED_TRACE(fmt::format("{} words of {} ranks", words, size()));
    std::vector<std::vector<uint32_t>> parts(size(), std::vector<uint32_t>(words));
    std::vector<uint32_t> all;
    for (std::vector<uint32_t>& part : parts) {
      for (size_t i = 0; i < words; i++) part[i] = i % 5 == 0 ? 0xffffffffU : static_cast<uint32_t>(random_());
      all.insert(all.end(), part.begin(), part.end());
    }
    std::vector<DeviceBuffer> send, receive;
    for (const std::vector<uint32_t>& part : parts) {
      send.push_back(to_device(part));
      receive.push_back(poisoned(all.size() * 4));
    }
    // Each word beside the number of its turn.
    const auto sent = [&](size_t sender, size_t) {
      Bytes text(words * 8);
      for (size_t i = 0; i < words; i++) {
        std::memcpy(text.data() + i * 8, &parts[sender][i], 4);
        std::memcpy(text.data() + i * 8 + 4, &turn, 4);
      }
      return text;
    };
    run_in_turn([&](size_t owner, size_t sender) { return gather_place(owner, turn, sender); }, sent,
                [&](size_t r) { peer_gather_cuda(group(r), send[r].data(), receive[r].data(), words * 4, stream_); });
    for (const DeviceBuffer& gathered : receive) EXPECT_EQ(to_host<uint32_t>(gathered), all);
    turn++;
  }
}

// What was added to before all had come is no sum, and others must not take it for one.
TEST_P(PeersInTurn, SendNoSumWhereAPeerSendsNoPart) {
  meet(1, 20'000'000);
  const size_t count = 20'483;
  const Parts parts = random_parts(count, Dtype::f16);
  const DeviceBuffer data = to_device(parts.of_rank[0]);
  peer_two_shot_sum_cuda(group(0), data.data(), count, Dtype::f16, stream_);
  stream_.synchronize();
  EXPECT_EQ(failure(), PeerFailure::timeout);
  const TwoShotPlan plan = plan_of_tensor(parts.sum.size());
  for (size_t owner = 1; owner < size(); owner++) {
    Bytes wanted = in_two_shots(parts, plan)(0, owner);
    std::fill(wanted.begin() + static_cast<int64_t>(plan.first_sum()), wanted.end(), kNotSent);
    EXPECT_EQ(read(sum_place(owner, 0, 0), wanted.size()), wanted) << "to rank " << owner;
  }
  // What is queued behind sends nothing.
  peer_two_shot_sum_cuda(group(0), data.data(), count, Dtype::f16, stream_);
  EXPECT_EQ(read(sum_place(1, 1, 0), plan.place_bytes()), Bytes(plan.place_bytes(), kNotSent));
}

INSTANTIATE_TEST_SUITE_P(, PeersInTurn, ::testing::Values(2, 4, 8),
                         [](const auto& test) { return fmt::format("{}Ranks", test.param); });

}  // namespace
}  // namespace lorikeet::kernels
