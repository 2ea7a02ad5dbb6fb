// All-reduces of a decode step over GPUs of one host: through the memory of peers in one shot and in two, and by NCCL,
// alone and with the residual stream and the norm behind them, as many in a graph as a step of 48 layers has. Every rank
// is a process. Which of them a step takes: comm/collective/sum_table.h.
//
// The floor of a size: the time that a word takes to a peer and back (a gather of one word by each rank), and the bytes
// that each rank must send, 2 (N - 1) / N of the tensor's, at the bandwidth with which a large copy reaches a peer; both
// measured in the same run, launch boundary included.
//
//   collective_gpu_bench [RANKS]    default: 2
#include <cstdlib>

#include "bench/comm/forked_ranks.h"
#include "bench/kernels/gpu_floors.cuh"
#include "comm/collective/peer_collective.h"
#include "comm/collective/peer_exchange.h"
#include "kernels/peer/peer_sum_cuda.h"
#include "tests/comm/collective/file_rendezvous.h"

namespace lorikeet::comm {
namespace {

using kernels::bench::must;

constexpr int kOperations = 96;  // of a graph
constexpr int kReplays = 30;
constexpr int32_t kWidth = 5120;  // of Qwen 14B
constexpr int32_t kMostRows = 2048;
constexpr uint64_t kCopyBytes = 256 << 20;

struct Times {
  double median, worst;  // us
};

class Bench {
 public:
  Bench(int rank, int ranks, const std::filesystem::path& directory) : rank_(rank), ranks_(ranks), store_(directory) {}

  void run() {
    const int devices = must(kernels::device_count());
    CHECK(kernels::use_device(rank_ % devices));
    stream_ = must(kernels::Stream::make());
    options_.rank = rank_;
    options_.size = ranks_;
    PeerOptions peers;
    peers.shares_device = devices < ranks_;
    options_.prefix = "peers";
    const auto ours = must(make_device_collective(store_, options_, peers));
    peers.enabled = false;
    options_.prefix = "nccl";
    const auto nccl = must(make_device_collective(store_, options_, peers));
    if (!ours->takes_norm(1, kWidth, kernels::Dtype::f16)) {
      fmt::print("the ranks do not reach each other's memory\n");
      return;
    }
    const double bytes_per_us = copy_to_a_peer(*ours) / 1e6;
    const kernels::DeviceBuffer words = kernels::bench::allocate(static_cast<uint64_t>(ranks_) * 4);
    const double word_us =
        per_operation(*ours, [&] { ours->all_gather(words.as<int32_t>() + rank_, words.data(), 4, stream_); }).median;
    fmt::print("{} ranks on {} x {}: {:.0f} GB/s to a peer, a word to all and back {:.2f} us\n", ranks_, devices,
               kernels::device_properties().name, bytes_per_us / 1e3, word_us);
    fmt::print("{:16} {:^43} {:^32}\n", "", "the sum, us (worst)", "and the norm, us (worst)");
    fmt::print("{:>6} {:>9} {:>16} {:>16} {:>9} {:>9} {:>16} {:>16} {:>9}\n", "rows", "bytes", "one shot", "two shots",
               "NCCL", "floor", "one shot", "two shots", "NCCL");
    const uint64_t most = uint64_t{kMostRows} * kWidth;
    const kernels::DeviceBuffer data = kernels::bench::random_halves(static_cast<int64_t>(most), 1, stream_);
    const kernels::DeviceBuffer residual = kernels::bench::allocate(most * sizeof(float));
    const kernels::DeviceBuffer weight = kernels::bench::allocate(kWidth * sizeof(float));
    const kernels::DeviceBuffer out = kernels::bench::allocate(most * 2);
    for (const kernels::DeviceBuffer* buffer : {&residual, &weight}) {
      kernels::fill_bytes(buffer->data(), 0, buffer->bytes(), stream_);
    }
    for (const int32_t rows : {1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 256, 512, kMostRows}) {
      const size_t count = static_cast<size_t>(rows) * kWidth;
      kernels::AddRmsNormArgs args;
      args.residual = residual.as<float>();
      args.delta = data.data();
      args.weight = weight.as<float>();
      args.epsilon = 1e-6F;
      args.out = out.data();
      args.tokens = rows;
      args.width = kWidth;
      const kernels::PeerGroup& group = *ours->peers();
      const auto by_peers = [&](bool fits, const auto& work) {
        if (!fits) return fmt::format("{:16}", "");
        const Times times = per_operation(*ours, work);
        return fmt::format("{:8.2f} ({:5.1f})", times.median, times.worst);
      };
      const bool in_one = count * 2 <= kernels::kMostPeerSumBytes;
      const auto in_nccl = [&](bool norm) {
        return per_operation(*nccl,
                             [&] {
                               nccl->all_reduce(data.data(), count, kernels::Dtype::f16, stream_);
                               if (norm) kernels::add_rms_norm_cuda(args, stream_);
                             })
            .median;
      };
      const std::string one =
          by_peers(in_one, [&] { kernels::peer_sum_cuda(group, data.data(), count, kernels::Dtype::f16, stream_); });
      const std::string two = by_peers(
          true, [&] { kernels::peer_two_shot_sum_cuda(group, data.data(), count, kernels::Dtype::f16, stream_); });
      const std::string one_norm = by_peers(in_one, [&] { kernels::peer_sum_norm_cuda(group, args, stream_); });
      const std::string two_norm = by_peers(true, [&] { kernels::peer_two_shot_norm_cuda(group, args, stream_); });
      const double sent = 2.0 * (ranks_ - 1) / ranks_ * static_cast<double>(count) * 2;
      fmt::print("{:6} {:9} {:>16} {:>16} {:9.2f} {:9.2f} {:>16} {:>16} {:9.2f}\n", rows, count * 2, one, two,
                 in_nccl(false), word_us + sent / bytes_per_us, one_norm, two_norm, in_nccl(true));
      std::fflush(stdout);
    }
  }

 private:
  void wait(DeviceCollective& group) {
    const kernels::Event event = must(kernels::Event::make());
    event.record(stream_);
    group.wait(event);
  }

  // Microseconds of one of many in a graph. Of two replays in a row the second is timed: both sides then run.
  template <class Work>
  Times per_operation(DeviceCollective& group, const Work& work) {
    work();
    wait(group);
    const kernels::Graph graph = must(kernels::Graph::capture(stream_, [&] {
      for (int i = 0; i < kOperations; ++i) work();
    }));
    const kernels::Event begin = must(kernels::Event::make(true));
    const kernels::Event end = must(kernels::Event::make(true));
    std::vector<double> times;
    for (int i = 0; i < kReplays; ++i) {
      graph.launch(stream_);
      begin.record(stream_);
      graph.launch(stream_);
      end.record(stream_);
      group.wait(end);
      times.push_back(1e3 * kernels::elapsed_ms(begin, end) / kOperations);
    }
    std::sort(times.begin(), times.end());
    return {times[times.size() / 2], times.back()};
  }

  // Bytes a second of a copy into the next rank's memory, while all do so.
  double copy_to_a_peer(DeviceCollective& group) {
    const auto own = must(kernels::PeerMemory::make(kCopyBytes));
    PeerExchangeOptions exchange;
    exchange.rank = rank_;
    exchange.size = ranks_;
    exchange.prefix = "copy";
    const Peers peers = must(exchange_with_peers(store_, exchange, PeerOffer{must(own.share()), ""}));
    const auto next = static_cast<size_t>((rank_ + 1) % ranks_);
    const auto to = must(kernels::PeerMemory::attach(peers.offers[next].descriptor, kCopyBytes));
    const kernels::DeviceBuffer from = kernels::bench::allocate(kCopyBytes);
    kernels::fill_bytes(from.data(), 1, kCopyBytes, stream_);
    const double us = kernels::bench::microseconds(
        stream_, [&] { kernels::copy_on_device(to.data(), from.data(), kCopyBytes, stream_); });
    // Nobody lets go of the memory before all are done with it.
    const kernels::DeviceBuffer word = kernels::bench::allocate(sizeof(float) * 4);
    group.all_reduce(word.data(), 4, kernels::Dtype::f32, stream_);
    wait(group);
    return kCopyBytes / us * 1e6;
  }

  const int rank_, ranks_;
  FileRendezvous store_;
  NcclOptions options_;
  kernels::Stream stream_;
};

}  // namespace
}  // namespace lorikeet::comm

int main(int argc, char** argv) {
  const int ranks = argc > 1 ? std::atoi(argv[1]) : 2;
  if (ranks < 2 || ranks > lorikeet::kernels::kMostPeers) {
    fmt::print(stderr, "usage: collective_gpu_bench [RANKS], of 2 to {}\n", lorikeet::kernels::kMostPeers);
    return 2;
  }
  const lorikeet::tests::TempDir directory;
  return lorikeet::bench::run_ranks(ranks,
                                    [&](int rank) { lorikeet::comm::Bench(rank, ranks, directory.path()).run(); });
}
