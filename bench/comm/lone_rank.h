// One of two ranks without the other: it is its own peer, so that its steps can be timed on one GPU. Its sums are those of a
// group, kernels and all, but what it sends comes back without a link between, and earlier. Results mean nothing. Filtered draws,
// whose words would have to come from somebody else, would wait for them.
#pragma once

#include <glog/logging.h>

#include <utility>

#include "comm/collective/device_collective.h"
#include "comm/collective/sum_table.h"

namespace lorikeet::bench {

class LoneRank final : public comm::DeviceCollective {
 public:
  static constexpr int kRanks = 2;

  LoneRank()
      : inbox_(value_of(kernels::PeerMemory::make(kernels::peer_inbox_bytes(kRanks)))),
        turns_(value_of(kernels::DeviceBuffer::allocate(kernels::peer_turns_bytes(), "a rank alone"))),
        words_(value_of(kernels::PinnedBuffer::allocate(2 * sizeof(uint32_t), "a rank alone"))) {
    words_.as<uint32_t>()[0] = words_.as<uint32_t>()[1] = 0;
    kernels::clear_peer_inbox(inbox_, kRanks, turns_, value_of(kernels::Stream::make()));
    group_.ranks = kRanks;
    group_.inboxes[0] = group_.inboxes[1] = inbox_.data();
    group_.turns = turns_.as<kernels::PeerTurns>();
    group_.abort = words_.as<uint32_t>();
    group_.failure = words_.as<uint32_t>() + 1;
    group_.most_ns = 10'000'000'000;
    group_.most_blocks = kernels::device_properties().multiprocessors * 3 / 4;
  }

  int rank() const override { return 0; }
  int size() const override { return kRanks; }

  // Larger ones, of prompts, are left out.
  void all_reduce(void* data, size_t count, kernels::Dtype dtype, const kernels::Stream& stream) override {
    if (is_one_shot(count * kernels::size_of(dtype))) kernels::peer_sum_cuda(group_, data, count, dtype, stream);
  }
  bool takes_norm(int32_t tokens, int32_t width, kernels::Dtype dtype) const override {
    return is_one_shot(static_cast<uint64_t>(tokens) * static_cast<uint64_t>(width) * kernels::size_of(dtype));
  }
  void all_reduce_norm(const kernels::AddRmsNormArgs& args, const kernels::Stream& stream) override {
    kernels::peer_sum_norm_cuda(group_, args, stream);
  }
  void all_gather(const void* send, void* receive, size_t bytes, const kernels::Stream& stream) override {
    for (int r = 0; r < kRanks; ++r) {
      auto* to = static_cast<unsigned char*>(receive) + static_cast<size_t>(r) * bytes;
      if (to != send) kernels::copy_on_device(to, send, bytes, stream);
    }
  }
  const kernels::PeerGroup* peers() override { return &group_; }
  void broadcast(void*, size_t, int, const kernels::Stream&) override {}
  void wait(const kernels::Event& event) override {
    event.synchronize();
    CHECK_EQ(words_.as<uint32_t>()[1], 0U) << "a sum was given up";
  }
  void check() override {}
  void abort() override {}

 private:
  template <class T>
  static T value_of(Result<T> result) {
    CHECK(result) << result.error().message;
    return *std::move(result);
  }
  static bool is_one_shot(uint64_t bytes) { return comm::sum_by(bytes, kRanks) == comm::SumBy::one_shot; }

  kernels::PeerMemory inbox_;
  kernels::DeviceBuffer turns_;
  kernels::PinnedBuffer words_;
  kernels::PeerGroup group_;
};

}  // namespace lorikeet::bench
