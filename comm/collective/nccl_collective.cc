// The communicator is non-blocking: NCCL's calls return at once with ncclInProgress, and what becomes of them is polled
// together with abort() and the deadline. Facts used: NCCL 2.28 user guide, "Fault tolerance" and "Group calls".
#include "comm/collective/nccl_collective.h"

#include <glog/logging.h>
#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "comm/collective/connecting_collective.h"

namespace lorikeet::comm {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

// A rank that comes back loads kernels and captures graphs at first, for which it needs the same locks of the driver as
// NCCL's start, which takes them for a second.
constexpr auto kRest = 3s;
constexpr auto kPollPeriod = 50us;   // far below a step, far above the cost of a look
constexpr auto kFlushTimeout = 1s;   // of a communicator that ends without a failure
constexpr auto kDrainTimeout = 5ms;  // of streams whose other kernels have been told to end

ncclDataType_t nccl_type(kernels::Dtype dtype) {
  switch (dtype) {
    case kernels::Dtype::f16:
      return ncclFloat16;
    case kernels::Dtype::bf16:
      return ncclBfloat16;
    case kernels::Dtype::f32:
      return ncclFloat32;
    default:
      LOG(FATAL) << "no sums of " << kernels::name_of(dtype);
  }
}

// Whether the call itself was wrong, rather than a peer or the network.
bool is_misuse(ncclResult_t result) {
  return result == ncclInvalidArgument || result == ncclInvalidUsage;
}

class NcclCollective final : public DeviceCollective {
 public:
  explicit NcclCollective(const NcclOptions& options) : options_(options) {}

  ~NcclCollective() override {
    if (communicator_ != nullptr && !aborter_.joinable() && !retire()) {
      end_communicator(flush() ? &ncclCommDestroy : &ncclCommAbort);
    }
    if (aborter_.joinable()) aborter_.join();
  }

  // Blocks until all ranks are there, on whatever thread, whose device becomes `device`; operations come after it.
  // Errors are those of the group, as CollectiveError.
  void connect(const ncclUniqueId& id, int device) {
    throw_if_dead();  // before NCCL begins what would have to be undone
    if (const auto used = kernels::use_device(device); !used) {
      throw CollectiveError(CollectiveFailure::peer_lost, used.error().message);
    }
    if (options_.retired) options_.retired->end();
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    const Clock::time_point deadline = Clock::now() + options_.connect_timeout;
    finish("connecting", ncclCommInitRankConfig(&communicator_, options_.size, id, options_.rank, &config), deadline);
  }

  int rank() const override { return options_.rank; }
  int size() const override { return options_.size; }

  void all_reduce(void* data, size_t count, kernels::Dtype dtype, const kernels::Stream& stream) override {
    queue("all_reduce", stream,
          [&] { return ncclAllReduce(data, data, count, nccl_type(dtype), ncclSum, communicator_, stream.handle()); });
  }

  bool takes_norm(int32_t, int32_t, kernels::Dtype) const override { return false; }

  void all_reduce_norm(const kernels::AddRmsNormArgs&, const kernels::Stream&) override {
    LOG(FATAL) << "NCCL's sums have no norms behind them";
  }

  const kernels::PeerGroup* peers() override { return nullptr; }

  void all_gather(const void* send, void* receive, size_t bytes, const kernels::Stream& stream) override {
    queue("all_gather", stream,
          [&] { return ncclAllGather(send, receive, bytes, ncclUint8, communicator_, stream.handle()); });
  }

  void broadcast(void* data, size_t bytes, int root, const kernels::Stream& stream) override {
    queue("broadcast", stream,
          [&] { return ncclBroadcast(data, data, bytes, ncclUint8, root, communicator_, stream.handle()); });
  }

  void wait(const kernels::Event& event) override {
    throw_if_dead();
    const Clock::time_point deadline = Clock::now() + options_.operation_timeout;
    while (!event.ready()) {
      look("waiting", deadline);
      std::this_thread::sleep_for(kPollPeriod);
    }
  }

  void check() override {
    throw_if_dead();
    look("checking", Clock::time_point::max());
  }

  void abort() override { aborted_ = true; }

 private:
  template <class Call>
  void queue(const char* name, const kernels::Stream& stream, const Call& call) {
    throw_if_dead();
    if (std::ranges::find(streams_, stream.handle()) == streams_.end()) streams_.push_back(stream.handle());
    finish(name, call(), Clock::now() + options_.operation_timeout);
  }

  // Sees a call through that may be in progress still: the first operation of a kind connects the ranks.
  void finish(const char* name, ncclResult_t result, Clock::time_point deadline) {
    in_call_ = true;
    if (result != ncclSuccess && result != ncclInProgress) die(name, result);
    while (result == ncclInProgress) {
      result = look(name, deadline);
      if (result == ncclInProgress) std::this_thread::sleep_for(kPollPeriod);
    }
    in_call_ = false;
  }

  // The state of the communicator: ncclSuccess or ncclInProgress. Throws when it is dead or the deadline has passed.
  ncclResult_t look(const char* name, Clock::time_point deadline) {
    if (aborted_) die(CollectiveFailure::aborted, name, "aborted");
    ncclResult_t state = ncclSuccess;
    const ncclResult_t result = ncclCommGetAsyncError(communicator_, &state);
    if (result != ncclSuccess) die(name, result);
    if (state != ncclSuccess && state != ncclInProgress) die(name, state);
    if (Clock::now() >= deadline) die(CollectiveFailure::timeout, name, "a peer did not answer in time");
    return state;
  }

  [[noreturn]] void die(const char* name, ncclResult_t result) {
    const std::string reason = ncclGetLastError(communicator_);
    CHECK(!is_misuse(result)) << name << ": " << ncclGetErrorString(result) << ": " << reason;
    die(aborted_ ? CollectiveFailure::aborted : CollectiveFailure::peer_lost, name,
        std::string(ncclGetErrorString(result)) + (reason.empty() ? "" : ": " + reason));
  }

  [[noreturn]] void die(CollectiveFailure failure, const char* name, const std::string& reason) {
    failure_ = failure;
    drained_ = is_drained();
    if (!drained_) end_communicator(&ncclCommAbort);
    throw CollectiveError(failure, fmt::format("{} on rank {} of {}: {}", name, options_.rank, options_.size, reason));
  }

  // What has ended here may still be on its way to others: NCCL's own threads send it, and an abort would drop it. Then
  // they would wait in vain.
  // False where it takes too long: somebody is lost.
  bool flush() {
    if (failure_ || aborted_) return false;
    const Clock::time_point deadline = Clock::now() + kFlushTimeout;
    ncclResult_t state = ncclCommFinalize(communicator_);
    while (state == ncclInProgress && !aborted_ && Clock::now() < deadline) {
      std::this_thread::sleep_for(kPollPeriod);
      if (ncclCommGetAsyncError(communicator_, &state) != ncclSuccess) return false;
    }
    return state == ncclSuccess;
  }

  // Whether no stream waits for this communicator, now or later: then its end has time. By whom operations come from, so
  // that the streams are there.
  bool is_drained() const {
    if (in_call_) return false;
    const Clock::time_point deadline = Clock::now() + kDrainTimeout;
    const auto is_idle = [](cudaStream_t stream) {
      cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;  // a query would end it
      return cudaStreamIsCapturing(stream, &capture) == cudaSuccess && capture == cudaStreamCaptureStatusNone &&
             cudaStreamQuery(stream) == cudaSuccess;
    };
    while (!std::ranges::all_of(streams_, is_idle)) {
      if (Clock::now() >= deadline) return false;
      std::this_thread::sleep_for(kPollPeriod);
    }
    return true;
  }

  // Hands a communicator that was given up to those that end later; false where it has to end now.
  bool retire() {
    if (!options_.retired || !drained_) return false;
    options_.retired->add(std::exchange(communicator_, nullptr));
    return true;
  }

  // ncclCommAbort takes half a second and lets go of the stream: on a thread of its own, so that the error is known at
  // once.
  void end_communicator(decltype(&ncclCommAbort) end) {
    if (communicator_ == nullptr) return;
    aborter_ = std::thread([end, communicator = std::exchange(communicator_, nullptr)] { end(communicator); });
  }

  void throw_if_dead() {
    if (!failure_ && aborted_) die(CollectiveFailure::aborted, "starting", "aborted");
    if (!failure_) return;
    throw CollectiveError(*failure_,
                          fmt::format("rank {} of {}: the communicator is dead", options_.rank, options_.size));
  }

  const NcclOptions options_;
  std::atomic<bool> aborted_{false};

  // Of the thread that connects, then of the one that calls the operations.
  ncclComm_t communicator_ = nullptr;
  std::vector<cudaStream_t> streams_;  // that operations were put on
  bool in_call_ = false;
  bool drained_ = false;  // is_drained() when it failed
  std::optional<CollectiveFailure> failure_;
  std::thread aborter_;
};

}  // namespace

void RetiredCommunicators::add(ncclComm* communicator) {
  const std::lock_guard lock(mutex_);
  communicators_.push_back(communicator);
}

void RetiredCommunicators::end() {
  const std::lock_guard lock(mutex_);
  for (ncclComm* const communicator : std::exchange(communicators_, {})) ncclCommAbort(communicator);
}

size_t RetiredCommunicators::size() const {
  const std::lock_guard lock(mutex_);
  return communicators_.size();
}

namespace {

// The id as rank 0 made it, or as it comes from there.
ncclUniqueId agree_on_id(Rendezvous& store, const NcclOptions& options) {
  const std::string key = options.prefix + "/nccl_unique_id";
  ncclUniqueId id;
  if (options.rank == 0) {
    const ncclResult_t result = ncclGetUniqueId(&id);
    if (result != ncclSuccess) {
      throw CollectiveError(
          CollectiveFailure::peer_lost,
          fmt::format("NCCL has no unique id: {}: {}", ncclGetErrorString(result), ncclGetLastError(nullptr)));
    }
    const auto* bytes = reinterpret_cast<const uint8_t*>(&id);
    store.set(key, {bytes, bytes + sizeof id});
    return id;
  }
  const std::vector<uint8_t> value = store.get(key, options.connect_timeout);
  if (value.size() != sizeof id) {
    throw CollectiveError(CollectiveFailure::peer_lost,
                          fmt::format("rank 0 sent {} bytes as NCCL's unique id of {}", value.size(), sizeof id));
  }
  std::memcpy(&id, value.data(), sizeof id);
  return id;
}

}  // namespace

Result<std::unique_ptr<DeviceCollective>> make_nccl_collective(Rendezvous& store, const NcclOptions& options) {
  if (options.size < 1 || options.rank < 0 || options.rank >= options.size) {
    return fail("a communicator has no rank {} of {}", options.rank, options.size);
  }
  try {
    auto collective = std::make_unique<NcclCollective>(options);
    const auto connect = [communicator = collective.get(), id = agree_on_id(store, options),
                          device = kernels::current_device()] { communicator->connect(id, device); };
    if (options.connect_behind) return connect_behind(std::move(collective), connect, kRest);
    connect();
    return collective;
  } catch (const CollectiveError& error) {
    return fail("rank {} of {} could not join {}: {}", options.rank, options.size, options.prefix, error.what());
  }
}

}  // namespace lorikeet::comm
