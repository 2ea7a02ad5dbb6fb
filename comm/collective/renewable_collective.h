// A communicator that can be exchanged for a new one under the model that uses it: a rank outlives its group.
#pragma once

#include <memory>
#include <utility>

#include "comm/collective/collective.h"

namespace lorikeet::comm {

// Threads: renew() and the operations from one thread. To abort from another thread, hold the present communicator itself.
class RenewableCollective final : public Collective {
 public:
  void renew(std::shared_ptr<Collective> communicator) { communicator_ = std::move(communicator); }

  int rank() const override { return communicator_->rank(); }
  int size() const override { return communicator_->size(); }
  void all_reduce(float* data, size_t count) override { communicator_->all_reduce(data, count); }
  void all_gather(const void* send, void* receive, size_t bytes) override {
    communicator_->all_gather(send, receive, bytes);
  }
  void broadcast(void* data, size_t bytes, int root) override { communicator_->broadcast(data, bytes, root); }
  void barrier() override { communicator_->barrier(); }
  void abort() override { communicator_->abort(); }

 private:
  std::shared_ptr<Collective> communicator_;
};

}  // namespace lorikeet::comm
