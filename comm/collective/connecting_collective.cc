#include "comm/collective/connecting_collective.h"

#include <chrono>
#include <future>
#include <system_error>
#include <utility>

namespace lorikeet::comm {
namespace {

using namespace std::chrono_literals;

class ConnectingCollective final : public DeviceCollective {
 public:
  ConnectingCollective(std::unique_ptr<DeviceCollective> communicator, std::function<void()> connect)
      : communicator_(std::move(communicator)), connected_(begin(connect)) {}

  ~ConnectingCollective() override {
    // Once connected it ends as it does without this, and others may still wait for what it sends.
    if (!is_connected()) communicator_->abort();
    connected_.wait();
  }

  int rank() const override { return communicator_->rank(); }
  int size() const override { return communicator_->size(); }

  void all_reduce(void* data, size_t count, kernels::Dtype dtype, const kernels::Stream& stream) override {
    connected().all_reduce(data, count, dtype, stream);
  }

  bool takes_norm(int32_t tokens, int32_t width, kernels::Dtype dtype) const override {
    return communicator_->takes_norm(tokens, width, dtype);
  }

  void all_reduce_norm(const kernels::AddRmsNormArgs& args, const kernels::Stream& stream) override {
    connected().all_reduce_norm(args, stream);
  }

  void all_gather(const void* send, void* receive, size_t bytes, const kernels::Stream& stream) override {
    connected().all_gather(send, receive, bytes, stream);
  }

  const kernels::PeerGroup* peers() override { return connected().peers(); }

  void broadcast(void* data, size_t bytes, int root, const kernels::Stream& stream) override {
    connected().broadcast(data, bytes, root, stream);
  }

  void wait(const kernels::Event& event) override { connected().wait(event); }

  void check() override {
    if (is_connected()) connected().check();
  }

  void abort() override { communicator_->abort(); }

 private:
  // By the calling thread where no other one can be had.
  static std::shared_future<void> begin(const std::function<void()>& connect) {
    try {
      return std::async(std::launch::async, connect).share();
    } catch (const std::system_error&) {
      return std::async(std::launch::deferred, connect).share();
    }
  }

  // Or has failed to.
  bool is_connected() const { return connected_.wait_for(0s) == std::future_status::ready; }

  // Throws what `connect` threw.
  DeviceCollective& connected() {
    connected_.get();
    return *communicator_;
  }

  const std::unique_ptr<DeviceCollective> communicator_;
  const std::shared_future<void> connected_;
};

}  // namespace

std::unique_ptr<DeviceCollective> connect_behind(std::unique_ptr<DeviceCollective> communicator,
                                                 std::function<void()> connect) {
  return std::make_unique<ConnectingCollective>(std::move(communicator), std::move(connect));
}

}  // namespace lorikeet::comm
