// A group whose sums are made in two shots wherever every rank owns a part, however few their bytes: small models take the
// kernels of large ones.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "comm/collective/device_collective.h"

namespace lorikeet::tests {

class TwoShotGroup final : public comm::DeviceCollective {
 public:
  // `group` reaches its peers' memory.
  explicit TwoShotGroup(std::shared_ptr<comm::DeviceCollective> group) : group_(std::move(group)) {}

  int64_t sums_in_two_shots() const { return sums_; }  // queued or captured

  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  void all_reduce(void* data, size_t count, kernels::Dtype dtype, const kernels::Stream& stream) override {
    const bool all_own = count * kernels::size_of(dtype) >= 512 * static_cast<size_t>(size());
    if (!all_own || reinterpret_cast<uintptr_t>(data) % 16 != 0) return group_->all_reduce(data, count, dtype, stream);
    kernels::peer_two_shot_sum_cuda(*group_->peers(), data, count, dtype, stream);
    ++sums_;
  }
  bool takes_norm(int32_t tokens, int32_t width, kernels::Dtype dtype) const override {
    return group_->takes_norm(tokens, width, dtype);
  }
  void all_reduce_norm(const kernels::AddRmsNormArgs& args, const kernels::Stream& stream) override {
    if (!kernels::peer_two_shot_takes(size(), args.width)) return group_->all_reduce_norm(args, stream);
    kernels::peer_two_shot_norm_cuda(*group_->peers(), args, stream);
    ++sums_;
  }
  void all_gather(const void* send, void* receive, size_t bytes, const kernels::Stream& stream) override {
    group_->all_gather(send, receive, bytes, stream);
  }
  const kernels::PeerGroup* peers() override { return group_->peers(); }
  void broadcast(void* data, size_t bytes, int root, const kernels::Stream& stream) override {
    group_->broadcast(data, bytes, root, stream);
  }
  void wait(const kernels::Event& event) override { group_->wait(event); }
  void check() override { group_->check(); }
  void abort() override { group_->abort(); }

 private:
  const std::shared_ptr<comm::DeviceCollective> group_;
  int64_t sums_ = 0;
};

}  // namespace lorikeet::tests
