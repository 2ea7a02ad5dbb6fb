// The collectives over Gloo's TCP transport, written over its send/recv since Gloo's own cannot be aborted and add in
// an order of their own. comm/algorithms.md counts the bytes of each.
//
// Every operation has one buffer that receives from all peers and one that sends to all, so that the failure of any
// peer ends the wait at once. When an operation fails the connections are closed: the peers then fail too, instead of
// waiting for a rank that has given up.
#include <gloo/common/error.h>
#include <gloo/common/logging.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/unbound_buffer.h>

#include <cstdint>
#include <cstring>
#include <mutex>
#include <optional>

#include "comm/group.h"
#include "comm/ordered_sum.h"

namespace lorikeet::comm {
namespace {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

// From here on reduce-scatter and all-gather, with less on the wire in more steps, beat sending everything to everyone.
// With two ranks the bytes are the same and the direct way always wins. Measured by bench/collective_bench.cc.
constexpr size_t kDirectBytes = 64 << 10;

// Gloo's view of the rendezvous.
class PrefixedStore final : public gloo::rendezvous::Store {
 public:
  PrefixedStore(Rendezvous& store, std::string prefix, Clock::time_point deadline)
      : store_(store), prefix_(std::move(prefix)), deadline_(deadline) {}

  void set(const std::string& key, const std::vector<char>& value) override {
    store_.set(prefix_ + "/" + key, {value.begin(), value.end()});
  }

  std::vector<char> get(const std::string& key) override {
    const auto left = std::chrono::duration_cast<Milliseconds>(deadline_ - Clock::now());
    const std::vector<uint8_t> value = store_.get(prefix_ + "/" + key, std::max(left, Milliseconds(0)));
    return {value.begin(), value.end()};
  }

  void wait(const std::vector<std::string>& keys) override {
    for (const std::string& key : keys) get(key);
  }

  void wait(const std::vector<std::string>& keys, const Milliseconds&) override { wait(keys); }

 private:
  Rendezvous& store_;
  const std::string prefix_;
  const Clock::time_point deadline_;
};

class GlooCollective final : public Collective {
 public:
  GlooCollective(std::shared_ptr<gloo::rendezvous::Context> context, Milliseconds timeout)
      : context_(std::move(context)), timeout_(timeout) {}

  ~GlooCollective() override { context_->closeConnections(); }

  int rank() const override { return context_->rank; }
  int size() const override { return context_->size; }

  void all_reduce(float* data, size_t count) override {
    run("all_reduce", [&] {
      if (size() == 1 || count == 0) return;
      if (size() == 2 || count * sizeof(float) <= kDirectBytes) {
        all_reduce_direct(data, count);
      } else {
        all_reduce_in_chunks(data, count);
      }
    });
  }

  void all_gather(const void* send, void* receive, size_t bytes) override {
    run("all_gather", [&] {
      if (bytes == 0) return;
      char* own = static_cast<char*>(receive) + rank() * bytes;
      if (send != own) std::memcpy(own, send, bytes);
      Exchange exchange(*this, {own, bytes}, {receive, size() * bytes});
      for (int peer : peers()) exchange.receive(peer, peer * bytes, bytes);
      for (int peer : peers()) exchange.send(peer, 0, bytes);
      exchange.finish();
    });
  }

  void broadcast(void* data, size_t bytes, int root) override {
    run("broadcast", [&] {
      if (bytes == 0) return;
      Exchange exchange(*this, {data, bytes}, {data, bytes});
      if (rank() == root) {
        for (int peer : peers()) exchange.send(peer, 0, bytes);
      } else {
        exchange.receive(root, 0, bytes);
      }
      exchange.finish();
    });
  }

  void barrier() override {
    run("barrier", [&] {
      Exchange exchange(*this, {nullptr, 0}, {nullptr, 0});
      for (int peer : peers()) exchange.receive(peer, 0, 0);
      for (int peer : peers()) exchange.send(peer, 0, 0);
      exchange.finish();
    });
  }

  void abort() override {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = CollectiveFailure::aborted;
    if (exchange_ != nullptr) {
      exchange_->interrupt();  // and the operation closes the connections on its way out
    } else if (!in_operation_) {
      context_->closeConnections();
    }
  }

 private:
  struct Memory {
    void* data;
    size_t bytes;
  };

  // Sends and receives under way between one memory and another. The destructor takes both away from Gloo: after it
  // nothing is read or written there.
  class Exchange {
   public:
    Exchange(GlooCollective& owner, Memory out, Memory in)
        : owner_(owner),
          slot_(owner.next_slot_++),
          out_(owner.context_->createUnboundBuffer(out.data, out.bytes)),
          in_(owner.context_->createUnboundBuffer(in.data, in.bytes)) {
      const std::lock_guard lock(owner_.mutex_);
      owner_.throw_if_failed();
      owner_.exchange_ = this;
    }

    ~Exchange() {
      const std::lock_guard lock(owner_.mutex_);
      owner_.exchange_ = nullptr;
    }

    Exchange(const Exchange&) = delete;
    Exchange& operator=(const Exchange&) = delete;

    void send(int peer, size_t offset, size_t bytes) {
      out_->send(peer, slot_, offset, bytes);
      ++sends_;
    }

    void receive(int peer, size_t offset, size_t bytes) {
      in_->recv(peer, slot_, offset, bytes);
      ++receives_;
    }

    // Waits for all of them.
    void finish() {
      for (; receives_ > 0; --receives_) check(in_->waitRecv(owner_.time_left()));
      for (; sends_ > 0; --sends_) check(out_->waitSend(owner_.time_left()));
    }

    void interrupt() {
      in_->abortWaitRecv();
      out_->abortWaitSend();
    }

   private:
    static void check(bool completed) {
      if (!completed) throw CollectiveError(CollectiveFailure::aborted, "aborted");
    }

    GlooCollective& owner_;
    const uint64_t slot_;
    const std::unique_ptr<gloo::transport::UnboundBuffer> out_, in_;
    int sends_ = 0, receives_ = 0;
  };

  std::vector<int> peers() const {
    std::vector<int> others;
    for (int i = 1; i < size(); ++i) others.push_back((rank() + i) % size());  // each rank begins with another
    return others;
  }

  // Everyone sends everything to everyone and adds.
  void all_reduce_direct(float* data, size_t count) {
    const size_t bytes = count * sizeof(float);
    scratch_.resize(count * size());
    {
      Exchange exchange(*this, {data, bytes}, {scratch_.data(), size() * bytes});
      for (int peer : peers()) exchange.receive(peer, peer * bytes, bytes);
      for (int peer : peers()) exchange.send(peer, 0, bytes);
      exchange.finish();
    }
    std::vector<const float*> terms;
    for (int r = 0; r < size(); ++r) terms.push_back(r == rank() ? data : scratch_.data() + r * count);
    ordered_sum(terms, data, count);
  }

  // Each rank adds one chunk, then hands it to the others.
  void all_reduce_in_chunks(float* data, size_t count) {
    const auto [own_begin, own_end] = chunk_of(count, rank(), size());
    const size_t own_count = own_end - own_begin, bytes = count * sizeof(float), own_bytes = own_count * sizeof(float);
    scratch_.resize(own_count * size());
    {
      Exchange exchange(*this, {data, bytes}, {scratch_.data(), size() * own_bytes});
      for (int peer : peers()) exchange.receive(peer, peer * own_bytes, own_bytes);
      for (int peer : peers()) {
        const auto chunk = chunk_of(count, peer, size());
        exchange.send(peer, chunk.first * sizeof(float), (chunk.second - chunk.first) * sizeof(float));
      }
      exchange.finish();
    }
    std::vector<const float*> terms;
    for (int r = 0; r < size(); ++r) terms.push_back(r == rank() ? data + own_begin : scratch_.data() + r * own_count);
    ordered_sum(terms, data + own_begin, own_count);

    Exchange exchange(*this, {data + own_begin, own_bytes}, {data, bytes});
    for (int peer : peers()) {
      const auto chunk = chunk_of(count, peer, size());
      exchange.receive(peer, chunk.first * sizeof(float), (chunk.second - chunk.first) * sizeof(float));
    }
    for (int peer : peers()) exchange.send(peer, 0, own_bytes);
    exchange.finish();
  }

  // Runs one operation and turns what can go wrong into a CollectiveError, after which the communicator is dead.
  template <class Operation>
  void run(const char* name, const Operation& operation) {
    {
      const std::lock_guard lock(mutex_);
      throw_if_failed();
      in_operation_ = true;
    }
    deadline_ = Clock::now() + timeout_;
    CollectiveFailure failure = CollectiveFailure::peer_lost;
    std::string reason;
    try {
      operation();
      const std::lock_guard lock(mutex_);
      in_operation_ = false;
      if (failure_) context_->closeConnections();  // aborted, but too late to stop this one
      return;
    } catch (const CollectiveError& error) {
      failure = error.failure();
      reason = error.what();
    } catch (const std::exception& error) {  // gloo::IoException and its other exceptions
      failure = Clock::now() >= deadline_ ? CollectiveFailure::timeout : CollectiveFailure::peer_lost;
      reason = error.what();
    }
    const std::lock_guard lock(mutex_);
    in_operation_ = false;
    if (!failure_) failure_ = failure;
    context_->closeConnections();
    throw CollectiveError(*failure_, fmt::format("{} on rank {} of {}: {}", name, rank(), size(), reason));
  }

  void throw_if_failed() const {
    if (!failure_) return;
    throw CollectiveError(*failure_, fmt::format("rank {} of {}: the communicator is dead", rank(), size()));
  }

  Milliseconds time_left() const {
    return std::max(std::chrono::duration_cast<Milliseconds>(deadline_ - Clock::now()), Milliseconds(1));
  }

  const std::shared_ptr<gloo::rendezvous::Context> context_;
  const Milliseconds timeout_;

  // Of the thread that calls the operations.
  Clock::time_point deadline_;
  uint64_t next_slot_ = 0;
  std::vector<float> scratch_;

  std::mutex mutex_;  // guards what abort() shares with the operations
  std::optional<CollectiveFailure> failure_;
  bool in_operation_ = false;
  Exchange* exchange_ = nullptr;
};

}  // namespace

Result<std::unique_ptr<Collective>> make_gloo_collective(Rendezvous& store, const GlooOptions& options) {
  if (options.size < 1 || options.rank < 0 || options.rank >= options.size) {
    return fail("a communicator has no rank {} of {}", options.rank, options.size);
  }
  if (options.size == 1) return std::move(make_local_group(1).front());
  try {
    gloo::transport::tcp::attr attributes;
    attributes.hostname = options.interface_address;
    std::shared_ptr<gloo::transport::Device> device = gloo::transport::tcp::CreateDevice(attributes);
    auto context = std::make_shared<gloo::rendezvous::Context>(options.rank, options.size);
    context->setTimeout(options.connect_timeout);
    PrefixedStore prefixed(store, options.prefix, Clock::now() + options.connect_timeout);
    context->connectFullMesh(prefixed, device);
    context->setTimeout(options.operation_timeout);
    return std::make_unique<GlooCollective>(std::move(context), options.operation_timeout);
  } catch (const std::exception& error) {
    return fail("rank {} of {} could not join {}: {}", options.rank, options.size, options.prefix, error.what());
  }
}

}  // namespace lorikeet::comm
