#include "comm/collective/connecting_collective.h"

#include <chrono>
#include <condition_variable>
#include <future>
#include <mutex>
#include <system_error>
#include <utility>

namespace lorikeet::comm {
namespace {

using namespace std::chrono_literals;

class ConnectingCollective final : public DeviceCollective {
 public:
  ConnectingCollective(std::unique_ptr<DeviceCollective> communicator, std::function<void()> connect,
                       std::chrono::milliseconds rest)
      : communicator_(std::move(communicator)), connect_(std::move(connect)), rest_(rest), connected_(begin()) {}

  ~ConnectingCollective() override {
    // Once connected it ends as it does without this, and others may still wait for what it sends.
    if (!is_connected()) abort();
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

  void abort() override {
    communicator_->abort();
    want();
  }

 private:
  // By the thread that first wants it where no other one can be had.
  std::shared_future<void> begin() {
    const auto after_rest = [this] {
      {
        std::unique_lock lock(mutex_);
        wake_.wait_for(lock, rest_, [this] { return wanted_; });
      }
      connect_();
    };
    try {
      return std::async(std::launch::async, after_rest).share();
    } catch (const std::system_error&) {
      return std::async(std::launch::deferred, after_rest).share();
    }
  }

  // From any thread.
  void want() {
    {
      const std::lock_guard lock(mutex_);
      wanted_ = true;
    }
    wake_.notify_one();
  }

  // Or has failed to.
  bool is_connected() const { return connected_.wait_for(0s) == std::future_status::ready; }

  // Throws what `connect` threw.
  DeviceCollective& connected() {
    if (!is_connected()) want();
    connected_.get();
    return *communicator_;
  }

  const std::unique_ptr<DeviceCollective> communicator_;
  const std::function<void()> connect_;
  const std::chrono::milliseconds rest_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  bool wanted_ = false;
  const std::shared_future<void> connected_;  // last: its thread uses the others
};

}  // namespace

std::unique_ptr<DeviceCollective> connect_behind(std::unique_ptr<DeviceCollective> communicator,
                                                 std::function<void()> connect, std::chrono::milliseconds rest) {
  return std::make_unique<ConnectingCollective>(std::move(communicator), std::move(connect), rest);
}

}  // namespace lorikeet::comm
