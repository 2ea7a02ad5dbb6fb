// Filtered draws of ranks that each have a part of the vocabulary.
#include <algorithm>
#include <cstdlib>

#include "kernels/peer/peer_sum_cuda.h"
#include "tests/kernels/sampling/sampling_cuda_fixture.h"

namespace lorikeet::kernels {
namespace {

// Loading a kernel waits until what runs has ended, which ranks of one process that wait for each other would not do: so
// all are loaded at the start.
[[maybe_unused]] const int loads_all_kernels = setenv("CUDA_MODULE_LOADING", "EAGER", 0);

// Ranks of one process and device: each has a stream, its part of the vocabulary, and the others' inboxes.
class DrawsOverPeers : public SamplingCuda {
 protected:
  void meet(int ranks, uint64_t most_ns) {
    peers_.clear();
    words_ = std::move(*PinnedBuffer::allocate(2 * sizeof(uint32_t), "a test"));
    std::fill_n(words_.as<uint32_t>(), 2, 0U);
    for (int r = 0; r < ranks; r++) {
      Peer peer;
      auto inbox = PeerMemory::make(peer_inbox_bytes(ranks));
      ASSERT_TRUE(inbox) << inbox.error().message;
      peer.inbox = std::move(*inbox);
      peer.turns = allocate(peer_turns_bytes());
      peer.stream = std::move(*Stream::make());
      clear_peer_inbox(peer.inbox, ranks, peer.turns, stream_);
      peers_.push_back(std::move(peer));
    }
    for (int r = 0; r < ranks; r++) {
      PeerGroup& group = peers_[static_cast<size_t>(r)].group;
      group.rank = r;
      group.ranks = ranks;
      for (int other = 0; other < ranks; other++)
        group.inboxes[other] = peers_[static_cast<size_t>(other)].inbox.data();
      group.turns = peers_[static_cast<size_t>(r)].turns.as<PeerTurns>();
      group.abort = words_.as<uint32_t>();
      group.failure = words_.as<uint32_t>() + 1;
      group.most_ns = most_ns;
      group.most_blocks = 1;
      group.shares_device = true;
    }
  }

  // What each of the first `present` ranks draws, every one from its own part.
  std::vector<std::vector<int32_t>> draw_by_all(const std::vector<std::vector<float>>& logits,
                                                const std::vector<DrawRow>& rows, size_t present) {
    const auto vocab = static_cast<int32_t>(logits[0].size());
    const auto ranks = static_cast<int32_t>(peers_.size());
    std::vector<DeviceBuffer> parts, drawn, workspaces;
    std::vector<FilteredDrawArgs> args_of;
    const DeviceBuffer device_rows = to_device(rows);
    for (size_t r = 0; r < present; r++) {
      const int32_t begin = vocab * static_cast<int32_t>(r) / ranks + (r == 1 ? 1 : 0);
      const int32_t end = vocab * static_cast<int32_t>(r + 1) / ranks + (r == 0 && ranks > 1 ? 1 : 0);
      std::vector<float> part;
      for (const auto& row : logits) part.insert(part.end(), row.begin() + begin, row.begin() + end);
      parts.push_back(to_device(part));
      drawn.push_back(poisoned(rows.size() * 4));
      workspaces.push_back(zeroed(vocab_cut_workspace(vocab)));
      stream_.synchronize();
      FilteredDrawArgs args;
      args.logits = parts.back().as<float>();
      args.stride = end - begin;
      args.vocab_begins[0] = begin;
      args.vocab_begins[1] = end;
      args.rows = device_rows.as<DrawRow>();
      args.num_rows = static_cast<int32_t>(rows.size());
      args.drawn = drawn.back().as<int32_t>();
      args.workspace = workspaces.back().data();
      args.peers = &peers_[r].group;
      args.tokens_of_peers = vocab;
      args_of.push_back(args);
    }
    for (size_t r = 0; r < present; r++) draw_filtered_cuda(args_of[r], peers_[r].stream);
    std::vector<std::vector<int32_t>> all;
    for (size_t r = 0; r < present; r++) {
      peers_[r].stream.synchronize();
      all.push_back(to_host<int32_t>(drawn[r]));
    }
    return all;
  }

  // Every rank draws what one that has all logits draws.
  void expect_whole_draws(const std::vector<std::vector<float>>& logits, const std::vector<DrawRow>& rows,
                          const std::string& what) {
    const std::vector<int32_t> whole = draw(logits, rows, 1);
    for (const auto& drawn : draw_by_all(logits, rows, peers_.size())) {
      EXPECT_EQ(drawn, whole) << what << ", " << peers_.size() << " ranks";
    }
    EXPECT_EQ(failure(), PeerFailure::none);
  }

  PeerFailure failure() const { return static_cast<PeerFailure>(words_.as<uint32_t>()[1]); }

  static constexpr uint64_t kLongNs = 20'000'000'000;

 private:
  struct Peer {
    PeerMemory inbox;
    DeviceBuffer turns;
    Stream stream;
    PeerGroup group;
  };
  std::vector<Peer> peers_;
  PinnedBuffer words_;
};

TEST_F(DrawsOverPeers, AreThoseOfTheWholeVocabulary) {
  struct Filter {
    int32_t top_k;
    float top_p, min_p;
  };
  // Among them cuts about which more tokens lie than ranks tell each other at once.
  const std::vector<Filter> filters = {{1, 1, 0},         {20, 0.95F, 0}, {0, 0.5F, 0},
                                       {0, 0.999F, 0},    {0, 1, 0.05F},  {50, 0.8F, 0.1F},
                                       {100000, 0.9F, 0}, {3000, 1, 0},   {20000, 0.7F, 0}};
  for (const int ranks : {2, 4}) {
    meet(ranks, kLongNs);
    for (const int32_t vocab : sizes({30, 5000, 152064}, {30, 20000})) {
      for (const float scale : {0.1F, 3.0F}) {
        for (const Filter& filter : filters) {
          const size_t count = vocab > 10000 ? 3 : usual_or_few(9, 2);
          const std::vector<std::vector<float>> logits = random_logits(count, vocab, scale);
          std::vector<DrawRow> rows;
          for (int32_t i = 0; i < static_cast<int32_t>(count); i++) {
            rows.push_back(row_of(i, 0.8F));
            rows.back().top_k = filter.top_k;
            rows.back().top_p = filter.top_p;
            rows.back().min_p = filter.min_p;
          }
          expect_whole_draws(logits, rows,
                             fmt::format("vocabulary {}, scale {}, top_k {}, top_p {}, min_p {}", vocab, scale,
                                         filter.top_k, filter.top_p, filter.min_p));
        }
      }
    }
  }
}

TEST_F(DrawsOverPeers, KeepTiesOverAllRanksAndPassRowsWithoutNumbers) {
  const int32_t vocab = 30000;
  std::vector<std::vector<float>> logits;
  std::vector<DrawRow> rows;
  for (int32_t i = 0; i < 70; i++) {                           // more rows than are cut at a time
    std::vector<float> row(static_cast<size_t>(vocab), 1.0F);  // thousands of equal ones
    for (size_t j = 0; j < 10; j++) row[j * 3000 + 3] = i % 3 == 0 ? 1.0F : 2.0F;
    if (i % 7 == 0) std::fill(row.begin(), row.end(), NAN);
    if (i % 7 == 1) std::fill(row.begin(), row.begin() + vocab / 2 + 1, NAN);  // the first of two ranks has no number
    logits.push_back(std::move(row));
    rows.push_back(row_of(i, 1));
    rows.back().top_p = i % 2 == 0 ? 0.3F : 1;
    rows.back().top_k = i % 2 == 0 ? 0 : i % 4 == 1 ? 4 : 5000;
  }
  for (const int ranks : {2, 3}) {
    meet(ranks, kLongNs);
    expect_whole_draws(logits, rows, "ties");
    expect_whole_draws(logits, rows, "ties again");
  }
}

TEST_F(DrawsOverPeers, EndInTimeWhereAPeerDoesNotCome) {
  meet(2, 50'000'000);
  const std::vector<std::vector<float>> logits = random_logits(3, 20000, 2);
  std::vector<DrawRow> rows;
  for (int32_t i = 0; i < 3; i++) {
    rows.push_back(row_of(i, 1));
    rows.back().top_p = 0.9F;
  }
  draw_by_all(logits, rows, 1);
  EXPECT_EQ(failure(), PeerFailure::timeout);
  draw_by_all(logits, rows, 1);  // at once
}

struct Filter {
  std::string name;
  int32_t top_k = 0;
  float top_p = 1, min_p = 0;
};

// A rank that is its own peer: what it sends to the second rank comes back as what that one sends, so that nothing waits, and
// tools that let one kernel run at a time see the kernels whole. Every token is there twice, which leaves a draw as it is
// where top_k counts both.
class DrawsOfALoneRank : public SamplingCuda, public ::testing::WithParamInterface<Filter> {
 protected:
  std::vector<int32_t> draw_alone(const std::vector<std::vector<float>>& logits, std::vector<DrawRow> rows) {
    // The second rank's inbox, as the first one sees it, begins where the places of a sender's rows have one size after
    // the first one's: a word of the first sender lies where the first inbox has the second sender's.
    constexpr uint64_t kPlacesOfASender = uint64_t{kMostPeerRows} * kMostPeerRowWords * 2 * sizeof(uint32_t);
    const DeviceBuffer inbox = poisoned(peer_inbox_bytes(2));
    const DeviceBuffer turns = zeroed(peer_turns_bytes());
    const PinnedBuffer words = std::move(*PinnedBuffer::allocate(2 * sizeof(uint32_t), "a test"));
    std::fill_n(words.as<uint32_t>(), 2, 0U);
    PeerGroup group;
    group.ranks = 2;
    group.inboxes[0] = inbox.as<unsigned char>();
    group.inboxes[1] = inbox.as<unsigned char>() + kPlacesOfASender;
    group.turns = turns.as<PeerTurns>();
    group.abort = words.as<uint32_t>();
    group.failure = words.as<uint32_t>() + 1;
    group.most_ns = 5'000'000'000;
    group.most_blocks = 1;
    group.shares_device = true;
    const auto vocab = static_cast<int32_t>(logits[0].size());
    std::vector<float> all;
    for (const auto& row : logits) all.insert(all.end(), row.begin(), row.end());
    for (DrawRow& row : rows) row.top_k *= 2;
    const DeviceBuffer device_logits = to_device(all);
    const DeviceBuffer device_rows = to_device(rows);
    const DeviceBuffer drawn = poisoned(rows.size() * 4);
    const DeviceBuffer workspace = zeroed(vocab_cut_workspace(vocab));
    FilteredDrawArgs args;
    args.logits = device_logits.as<float>();
    args.stride = vocab;
    args.vocab_begins[1] = vocab;
    args.rows = device_rows.as<DrawRow>();
    args.num_rows = static_cast<int32_t>(rows.size());
    args.drawn = drawn.as<int32_t>();
    args.workspace = workspace.data();
    args.peers = &group;
    args.tokens_of_peers = 2 * vocab;
    draw_filtered_cuda(args, stream_);
    const std::vector<int32_t> first = to_host<int32_t>(drawn);
    draw_filtered_cuda(args, stream_);  // the next turns of the rows
    EXPECT_EQ(to_host<int32_t>(drawn), first);
    EXPECT_EQ(words.as<uint32_t>()[1], 0U) << "a word did not come";
    return first;
  }
};

TEST_P(DrawsOfALoneRank, AreThoseOfTheVocabularyThatItHas) {
  const Filter& filter = GetParam();
  for (const int32_t vocab : {30, 9000}) {
    for (const float scale : {0.1F, 3.0F}) {
      const std::vector<std::vector<float>> logits = random_logits(3, vocab, scale);
      const std::vector<DrawRow> rows = rows_of(3, 0.8F, {filter.top_k, filter.top_p, filter.min_p});
      EXPECT_EQ(draw_alone(logits, rows), draw(logits, rows, 1)) << "vocabulary " << vocab << ", scale " << scale;
    }
  }
}

// Among them cuts about which more tokens lie than ranks tell each other at once.
INSTANTIATE_TEST_SUITE_P(, DrawsOfALoneRank,
                         ::testing::Values(Filter{"TheBest", 1, 1, 0}, Filter{"TopK20TopP95", 20, 0.95F, 0},
                                           Filter{"TopP50", 0, 0.5F, 0}, Filter{"MinP5", 0, 1, 0.05F},
                                           Filter{"TopK50TopP80MinP10", 50, 0.8F, 0.1F}, Filter{"TopK3000", 3000, 1, 0},
                                           Filter{"TopK3000TopP70", 3000, 0.7F, 0}),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace lorikeet::kernels
