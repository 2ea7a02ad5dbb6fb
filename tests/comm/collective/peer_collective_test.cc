// What sums over the memory of peers promise beyond other communicators: their bits.
#include "comm/collective/peer_collective.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "comm/collective/sum_table.h"
#include "kernels/peer/peer_sum_cuda.h"
#include "tests/comm/collective/gpu_ranks.h"

namespace lorikeet::comm {
namespace {

using kernels::Dtype;
using ::testing::Each;

class PeerSums : public GpuRanks {};

// What each rank adds: every rank knows the parts of all.
std::vector<float> part_of(int rank, size_t count, uint32_t seed) {
  constexpr std::array<float, 5> kScales = {0x1p-20F, 0x1p-21F, 0x1p-22F, 0x1p-23F, 0x1p-24F};
  uint32_t state =
      std::mt19937(seed * 16 + static_cast<uint32_t>(rank))();  // then of a congruence, for millions of values
  std::vector<float> values(count);
  for (float& value : values) {
    state = state * 1'664'525 + 1'013'904'223;
    value = (static_cast<float>(state >> 8) - 0x1p23F) * kScales[(state >> 4) % kScales.size()];
  }
  return values;
}

// As the device stores it, and back.
struct Stored {
  Dtype dtype;
  std::vector<unsigned char> bytes_of(const std::vector<float>& values) const {
    std::vector<unsigned char> bytes(values.size() * size_of(dtype));
    for (size_t i = 0; i < values.size(); i++) {
      const uint32_t word = dtype == Dtype::f32   ? std::bit_cast<uint32_t>(values[i])
                            : dtype == Dtype::f16 ? kernels::float_to_half(values[i])
                                                  : kernels::float_to_bf16(values[i]);
      std::memcpy(bytes.data() + i * size_of(dtype), &word, size_of(dtype));
    }
    return bytes;
  }
  std::vector<float> values_of(const std::vector<unsigned char>& bytes) const {
    std::vector<float> values(bytes.size() / size_of(dtype));
    for (size_t i = 0; i < values.size(); i++) values[i] = kernels::load_float(bytes.data(), dtype, i);
    return values;
  }
};

kernels::DeviceBuffer to_device(const void* data, uint64_t bytes, const kernels::Stream& stream) {
  kernels::DeviceBuffer buffer = allocate(bytes);
  kernels::copy_to_device(buffer.data(), data, bytes, stream);
  stream.synchronize();
  return buffer;
}

std::vector<unsigned char> to_host(const kernels::DeviceBuffer& buffer, const kernels::Stream& stream) {
  std::vector<unsigned char> bytes(buffer.bytes());
  kernels::copy_to_host(bytes.data(), buffer.data(), bytes.size(), stream);
  stream.synchronize();
  return bytes;
}

// ((r0 + r1) + r2) + ... in float, rounded once.
std::vector<unsigned char> sum_in_order(int size, size_t count, Dtype dtype, uint32_t seed) {
  const Stored stored{dtype};
  std::vector<float> sum;
  for (int r = 0; r < size; r++) {
    const std::vector<float> part = stored.values_of(stored.bytes_of(part_of(r, count, seed)));
    if (r == 0) {
      sum = part;
    } else {
      for (size_t i = 0; i < count; i++) sum[i] += part[i];
    }
  }
  return stored.bytes_of(sum);
}

TEST_P(PeerSums, HaveTheBitsOfTheOrderOfRanks) {
  for (const int size : {2, 3, 4}) {
    EXPECT_THAT(ask_ranks(size,
                          [](DeviceCollective& collective, const kernels::Stream& stream) -> std::string {
                            uint32_t seed = 0;
                            for (const Dtype dtype : {Dtype::f16, Dtype::bf16, Dtype::f32}) {
                              for (const size_t count : {1, 2, 7, 8, 9, 255, 5120, 40'963, 81'920, 163'840, 400'001,
                                                         491'520, 5, 64, 600'001, 655'360, 1'000'000}) {
                                if (sum_by(count * size_of(dtype), collective.size()) == SumBy::library) continue;
                                seed++;
                                const auto part = Stored{dtype}.bytes_of(part_of(collective.rank(), count, seed));
                                const auto data = to_device(part.data(), part.size(), stream);
                                collective.all_reduce(data.data(), count, dtype, stream);
                                wait_for(collective, stream);
                                if (to_host(data, stream) != sum_in_order(collective.size(), count, dtype, seed)) {
                                  return fmt::format("a sum of {} {} differs", count, kernels::name_of(dtype));
                                }
                              }
                            }
                            return "";
                          }),
                Each(""))
        << size << " ranks";
  }
}

// Small integers, whose sums are exact in fp16. Over four ranks 10,000 of them where LORIKEET_FULL is set (tests/gpu.sh peers).
TEST_P(PeerSums, AreRightAtThousandsOfRandomSizes) {
  for (const int size : {2, 4}) {
    EXPECT_THAT(
        ask_ranks(size,
                  [](DeviceCollective& collective, const kernels::Stream& stream) -> std::string {
                    constexpr size_t kMost = 786'432;  // 1.5 MiB: in one shot and in two
                    constexpr size_t kTerms = 7;
                    std::array<uint16_t, 256> halves{};
                    for (size_t i = 0; i < halves.size(); i++) {
                      halves[i] = kernels::float_to_half(static_cast<float>(i));
                    }
                    const auto ranks = static_cast<size_t>(collective.size());
                    const auto rank = static_cast<size_t>(collective.rank());
                    const int operations = ranks < 4 || std::getenv("LORIKEET_FULL") != nullptr ? 10'000 : 2'000;
                    const kernels::DeviceBuffer data = allocate(kMost * 2);
                    std::vector<uint16_t> values(kMost + kTerms), wanted(kMost + kTerms);
                    std::mt19937 random(5);  // the same on all ranks
                    for (int i = 0; i < operations; i++) {
                      const double share = static_cast<double>(random()) / 0x1p32;
                      const auto count = static_cast<size_t>(std::pow(static_cast<double>(kMost), share));
                      const size_t base = random() % 40;
                      for (size_t term = 0; term < kTerms; term++) {
                        values[term] = halves[base + term + rank];
                        wanted[term] = halves[(base + term) * ranks + ranks * (ranks - 1) / 2];
                      }
                      for (size_t j = kTerms; j < count; j++) {
                        values[j] = values[j - kTerms];
                        wanted[j] = wanted[j - kTerms];
                      }
                      kernels::copy_to_device(data.data(), values.data(), count * 2, stream);
                      collective.all_reduce(data.data(), count, Dtype::f16, stream);
                      wait_for(collective, stream);
                      kernels::copy_to_host(values.data(), data.data(), count * 2, stream);
                      stream.synchronize();
                      if (!std::equal(values.begin(), values.begin() + static_cast<int64_t>(count), wanted.begin())) {
                        return fmt::format("sum {}, of {} values, is wrong", i, count);
                      }
                    }
                    return "";
                  }),
        Each(""))
        << size << " ranks";
  }
}

// Of any size, whatever the table says, in more than one piece where they find no room.
TEST_P(PeerSums, InTwoShotsHaveTheBitsOfOneShot) {
  for (const int size : {2, 3, 4}) {
    EXPECT_THAT(ask_ranks(size,
                          [](DeviceCollective& collective, const kernels::Stream& stream) -> std::string {
                            uint32_t seed = 100;
                            for (const Dtype dtype : {Dtype::f16, Dtype::bf16, Dtype::f32}) {
                              for (const size_t count : {1024, 1025, 5120, 40'963, 163'840, 400'001, 2'700'003}) {
                                seed++;
                                const auto part = Stored{dtype}.bytes_of(part_of(collective.rank(), count, seed));
                                const auto data = to_device(part.data(), part.size(), stream);
                                kernels::peer_two_shot_sum_cuda(*collective.peers(), data.data(), count, dtype, stream);
                                wait_for(collective, stream);
                                if (to_host(data, stream) != sum_in_order(collective.size(), count, dtype, seed)) {
                                  return fmt::format("a sum of {} {} differs", count, kernels::name_of(dtype));
                                }
                              }
                            }
                            return "";
                          }),
                Each(""))
        << size << " ranks";
  }
}

// The outputs of a layer's end, and how it is made.
enum class End { apart, fused, in_two_shots };
struct LayerEnd {
  std::vector<unsigned char> residual, out;
  std::vector<unsigned char> done;
  bool operator==(const LayerEnd&) const = default;
};

LayerEnd end_layer(DeviceCollective& collective, const kernels::Stream& stream, int32_t tokens, int32_t width,
                   Dtype dtype, bool in_place, End end) {
  const size_t count = static_cast<size_t>(tokens) * static_cast<size_t>(width);
  const std::vector<float> before = part_of(100, count, 1);
  const std::vector<float> weight = part_of(101, static_cast<size_t>(width), 1);
  const auto part = Stored{dtype}.bytes_of(part_of(collective.rank(), count, 2));
  const auto residual = to_device(before.data(), count * sizeof(float), stream);
  const auto elsewhere = allocate(count * sizeof(float));
  const auto delta = to_device(part.data(), part.size(), stream);
  const auto weights = to_device(weight.data(), weight.size() * sizeof(float), stream);
  const auto out = allocate(count * size_of(dtype));
  const uint32_t zero = 0;
  const auto done = to_device(&zero, sizeof zero, stream);
  kernels::AddRmsNormArgs args;
  args.residual = residual.as<float>();
  args.residual_out = in_place ? nullptr : elsewhere.as<float>();
  args.delta = delta.data();
  args.weight = weights.as<float>();
  args.epsilon = 1e-6F;
  args.out = out.data();
  args.dtype = dtype;
  args.tokens = tokens;
  args.width = width;
  args.done = in_place ? done.as<uint32_t>() : nullptr;
  if (end == End::fused) {
    collective.all_reduce_norm(args, stream);
  } else if (end == End::in_two_shots) {
    kernels::peer_two_shot_norm_cuda(*collective.peers(), args, stream);
  } else {
    // Row by row: no row's bits depend on the others.
    const size_t row = static_cast<size_t>(width);
    for (size_t i = 0; i < count; i += row) {
      collective.all_reduce(delta.as<uint16_t>() + i, row, dtype, stream);
    }
    kernels::add_rms_norm_cuda(args, stream);
  }
  wait_for(collective, stream);
  return {to_host(in_place ? residual : elsewhere, stream), to_host(out, stream), to_host(done, stream)};
}

TEST_P(PeerSums, WithTheNormBehindHaveTheBitsOfBothApart) {
  for (const int size : {2, 4}) {
    EXPECT_THAT(ask_ranks(size,
                          [](DeviceCollective& collective, const kernels::Stream& stream) -> std::string {
                            for (const Dtype dtype : {Dtype::f16, Dtype::bf16}) {
                              for (const int32_t width : {8, 1000, 2056, 5120, 8192}) {
                                for (const int32_t tokens : {1, 2, 17, 64, 96, 130, 300}) {
                                  const bool takes = collective.takes_norm(tokens, width, dtype);
                                  const bool two = kernels::peer_two_shot_takes(collective.size(), width);
                                  const bool in_place = tokens % 2 == 0;
                                  const auto run = [&](End end) {
                                    return end_layer(collective, stream, tokens, width, dtype, in_place, end);
                                  };
                                  const LayerEnd apart = run(End::apart);
                                  if ((takes && run(End::fused) != apart) || (two && run(End::in_two_shots) != apart)) {
                                    return fmt::format("{} rows of {} {} differ", tokens, width,
                                                       kernels::name_of(dtype));
                                  }
                                }
                              }
                            }
                            return "";
                          }),
                Each(""))
        << size << " ranks";
  }
}

TEST_P(PeerSums, ReplayFromGraphsOfAllSizesInAnyOrder) {
  EXPECT_THAT(ask_ranks(2,
                        [](DeviceCollective& collective, const kernels::Stream& stream) -> std::string {
                          // Each sum doubles what it finds, on both ranks.
                          const std::vector<size_t> counts = {5120, 16 * 5120, 8, 70 * 5120};  // the last in two shots
                          constexpr int kSums = 5;
                          const std::vector<float> ones(counts[3], 1);
                          std::vector<kernels::DeviceBuffer> buffers;
                          std::vector<kernels::Graph> graphs;
                          for (const size_t count : counts) {
                            buffers.push_back(to_device(ones.data(), count * sizeof(float), stream));
                            auto graph = kernels::Graph::capture(stream, [&] {
                              for (int i = 0; i < kSums; i++) {
                                collective.all_reduce(buffers.back().data(), count, Dtype::f32, stream);
                              }
                            });
                            if (!graph) return graph.error().message;
                            graphs.push_back(*std::move(graph));
                          }
                          std::mt19937 random(3);
                          std::vector<int> replays(counts.size(), 0);
                          for (int i = 0; i < 60; i++) {
                            const size_t which = random() % counts.size();
                            if (replays[which] == 20) continue;
                            replays[which]++;
                            graphs[which].launch(stream);
                          }
                          wait_for(collective, stream);
                          for (size_t i = 0; i < counts.size(); i++) {
                            const auto values = Stored{Dtype::f32}.values_of(to_host(buffers[i], stream));
                            const float wanted = std::ldexp(1.0F, kSums * replays[i]);
                            if (std::count(values.begin(), values.end(), wanted) != static_cast<int64_t>(counts[i])) {
                              return fmt::format("{} values: {} instead of {}", counts[i], values[0], wanted);
                            }
                          }
                          return "";
                        }),
              Each(""));
}

TEST_P(PeerSums, KeepWhatIsNotANumberAndDoNotWaitForIt) {
  EXPECT_THAT(ask_ranks(2,
                        [](DeviceCollective& collective, const kernels::Stream& stream) -> std::string {
                          const size_t count = 5120;
                          const std::vector<unsigned char> bytes(count * 2, 0xff);  // NaN in every place
                          const auto data = to_device(bytes.data(), bytes.size(), stream);
                          collective.all_reduce(data.data(), count, Dtype::f16, stream);
                          wait_for(collective, stream);
                          for (const float value : Stored{Dtype::f16}.values_of(to_host(data, stream))) {
                            if (!std::isnan(value)) return fmt::format("{} came of NaN", value);
                          }
                          return "";
                        }),
              Each(""));
}

TEST_P(PeerSums, GatherAnyBitsOfAnySize) {
  EXPECT_THAT(ask_ranks(3,
                        [](DeviceCollective& collective, const kernels::Stream& stream) -> std::string {
                          std::mt19937 random(11);
                          for (int i = 0; i < 500; i++) {
                            const size_t words = 1 + random() % (kernels::kMostPeerGatherBytes / 4);
                            const uint32_t seed = random();
                            std::vector<uint32_t> wanted(3 * words);
                            for (size_t j = 0; j < wanted.size(); j++) {
                              wanted[j] = j % 5 == 0 ? 0xffffffffU : seed + static_cast<uint32_t>(j);
                            }
                            const auto rank = static_cast<size_t>(collective.rank());
                            const auto send = to_device(wanted.data() + rank * words, words * 4, stream);
                            const auto all = allocate(3 * words * 4);
                            collective.all_gather(send.data(), all.data(), words * 4, stream);
                            wait_for(collective, stream);
                            const auto got = to_host(all, stream);
                            if (std::memcmp(got.data(), wanted.data(), got.size()) != 0) {
                              return fmt::format("gather {}, of {} words, is wrong", i, words);
                            }
                          }
                          return "";
                        }),
              Each(""));
}

INSTANTIATE_TEST_SUITE_P(Communicators, PeerSums, ::testing::Values(true), name_of_ranks);

TEST(SumTable, GivesDecodeStepsToThePeersAndLongPromptsOfManyRanksToTheLibrary) {
  constexpr uint64_t kRow = 5120 * 2;  // of Qwen 14B
  for (const int ranks : {2, 4, 8}) {
    for (const uint64_t rows : {1, 8, 64, 128, 256}) EXPECT_NE(sum_by(rows * kRow, ranks), SumBy::library) << rows;
  }
  EXPECT_NE(sum_by(2048 * kRow, 2), SumBy::library);
  for (const int ranks : {3, 4, 8}) EXPECT_EQ(sum_by(2048 * kRow, ranks), SumBy::library);
  EXPECT_EQ(sum_by(kRow, 9), SumBy::library);
}

TEST(SumTable, TakesTwoShotsForWhatIsLarge) {
  constexpr uint64_t kRow = 5120 * 2;
  EXPECT_EQ(sum_by(128 * kRow, 2), SumBy::one_shot);
  EXPECT_EQ(sum_by(129 * kRow, 2), SumBy::two_shot);
  EXPECT_EQ(sum_by(96 * kRow, 4), SumBy::one_shot);
  EXPECT_EQ(sum_by(97 * kRow, 4), SumBy::two_shot);
  EXPECT_EQ(sum_by(64 * kRow, 8), SumBy::one_shot);
  EXPECT_EQ(sum_by(65 * kRow, 8), SumBy::two_shot);
  for (const SumTableRow& row : kSumTable) {
    EXPECT_LE(row.most_one_shot, kernels::kMostPeerSumBytes);
    EXPECT_GE(row.most_one_shot, static_cast<uint64_t>(row.ranks) * 512) << "each rank owns a part in two shots";
  }
}

}  // namespace
}  // namespace lorikeet::comm
