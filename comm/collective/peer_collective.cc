#include "comm/collective/peer_collective.h"

#include <glog/logging.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "comm/collective/peer_exchange.h"
#include "comm/collective/sum_table.h"
#include "kernels/peer/peer_memory.h"
#include "kernels/peer/peer_sum_cuda.h"

namespace lorikeet::comm {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;
using kernels::PeerFailure;
using kernels::PeerMemory;

constexpr auto kPollPeriod = 50us;
constexpr auto kExchangeTimeout = 10s;
constexpr auto kTrialTimeout = 10s;
// A peer that is done closes its line, perhaps before this rank's device has passed the last operation.
constexpr auto kGrace = 100ms;

// Host memory that kernels look at and write to.
struct HostWords {
  uint32_t abort;
  uint32_t failure;
};

uint32_t read(const uint32_t& word) {
  return *static_cast<const volatile uint32_t*>(&word);
}
void write(uint32_t& word, uint32_t value) {
  *static_cast<volatile uint32_t*>(&word) = value;
}

// This rank's inbox, the others', and what surrounds them.
class PeerInboxes {
 public:
  // Everything that needs no other rank.
  static Result<PeerInboxes> make(const NcclOptions& options, const PeerOptions& peers) {
    if (options.size > kernels::kMostPeers) {
      return fail("{} ranks: {} at most reach each other's memory", options.size, kernels::kMostPeers);
    }
    PeerInboxes made;
    auto inbox = PeerMemory::make(kernels::peer_inbox_bytes(options.size));
    if (!inbox) return tl::unexpected(inbox.error());
    made.inboxes_.resize(static_cast<size_t>(options.size));
    made.inboxes_[static_cast<size_t>(options.rank)] = *std::move(inbox);
    auto turns = kernels::DeviceBuffer::allocate(kernels::peer_turns_bytes(), "sums over peers");
    if (!turns) return tl::unexpected(turns.error());
    made.turns_ = *std::move(turns);
    auto words = kernels::PinnedBuffer::allocate(sizeof(HostWords), "sums over peers");
    if (!words) return tl::unexpected(words.error());
    made.words_ = *std::move(words);
    *made.words() = {};
    const auto stream = kernels::Stream::make();
    if (!stream) return tl::unexpected(stream.error());
    kernels::clear_peer_inbox(made.inboxes_[static_cast<size_t>(options.rank)], options.size, made.turns_, *stream);

    const kernels::DeviceProperties device = kernels::device_properties();
    kernels::PeerGroup& group = made.group_;
    group.rank = options.rank;
    group.ranks = options.size;
    group.turns = made.turns_.as<kernels::PeerTurns>();
    group.abort = &made.words()->abort;
    group.failure = &made.words()->failure;
    group.most_ns = 2 * static_cast<uint64_t>(std::chrono::nanoseconds(options.operation_timeout).count());
    group.shares_device = peers.shares_device || device.multi_process_service;
    // Where ranks share a device, half of its processors stay free of blocks that wait. Elsewhere a quarter
    // does, for the kernels behind, which begin meanwhile.
    group.most_blocks =
        std::max(1, group.shares_device ? device.multiprocessors / (2 * options.size) : device.multiprocessors * 3 / 4);
    return made;
  }

  Result<PeerOffer> offer() const {
    auto descriptor = inboxes_[static_cast<size_t>(group_.rank)].share();
    if (!descriptor) return tl::unexpected(descriptor.error());
    const auto address = kernels::device_bus_address();
    if (!address) return tl::unexpected(address.error());
    return PeerOffer{*std::move(descriptor), *address};
  }

  Result<void> attach(Peers peers) {
    for (size_t r = 0; r < inboxes_.size(); ++r) {
      if (static_cast<int>(r) != group_.rank) {
        if (!kernels::reaches_device_at(peers.offers[r].about)) {
          return fail("the device of rank {} at {} is out of reach", r, peers.offers[r].about);
        }
        auto inbox = PeerMemory::attach(peers.offers[r].descriptor, kernels::peer_inbox_bytes(group_.ranks));
        if (!inbox) return tl::unexpected(inbox.error());
        inboxes_[r] = *std::move(inbox);
      }
      group_.inboxes[r] = inboxes_[r].data();
    }
    peers.offers.clear();  // what is mapped stays
    peers_ = std::move(peers);
    return {};
  }

  // Sums of both kinds and a gather, of which every rank knows what must come out.
  Result<void> try_out() {
    constexpr size_t kOneShot = 20'000;
    constexpr size_t kTwoShot = 36'000;
    constexpr size_t kCount = kOneShot + kTwoShot;
    const auto stream = kernels::Stream::make();
    const auto event = kernels::Event::make();
    const auto buffer = kernels::DeviceBuffer::allocate(kCount * sizeof(float), "a trial of sums over peers");
    const auto ranks = kernels::DeviceBuffer::allocate(sizeof(int32_t) * inboxes_.size(), "a trial of sums over peers");
    if (!stream || !event || !buffer || !ranks) return fail("no memory for a trial");
    std::vector<float> values(kCount, static_cast<float>(group_.rank + 1));
    std::vector<int32_t> gathered(inboxes_.size(), group_.rank);
    kernels::copy_to_device(buffer->data(), values.data(), buffer->bytes(), *stream);
    kernels::copy_to_device(ranks->data(), gathered.data(), ranks->bytes(), *stream);
    kernels::peer_sum_cuda(group_, buffer->data(), kOneShot, kernels::Dtype::f32, *stream);
    kernels::peer_two_shot_sum_cuda(group_, buffer->as<float>() + kOneShot, kTwoShot, kernels::Dtype::f32, *stream);
    kernels::peer_gather_cuda(group_, ranks->as<int32_t>() + group_.rank, ranks->data(), sizeof(int32_t), *stream);
    event->record(*stream);
    const Clock::time_point deadline = Clock::now() + kTrialTimeout;
    while (!event->ready()) {
      if (Clock::now() >= deadline) raise();
      std::this_thread::sleep_for(kPollPeriod);
    }
    if (failure() != PeerFailure::none) return fail("a trial sum over peers did not come to an end");
    kernels::copy_to_host(values.data(), buffer->data(), buffer->bytes(), *stream);
    kernels::copy_to_host(gathered.data(), ranks->data(), ranks->bytes(), *stream);
    stream->synchronize();
    const auto wanted = static_cast<float>(group_.ranks * (group_.ranks + 1) / 2);
    bool right = std::count(values.begin(), values.end(), wanted) == static_cast<int64_t>(kCount);
    for (size_t r = 0; r < gathered.size(); ++r) right &= gathered[r] == static_cast<int32_t>(r);
    if (!right) {
      return fail("a trial sum over peers is wrong: {} and {} instead of {}", values.front(), values.back(), wanted);
    }
    return {};
  }

  // Ends all waits of kernels, now and later. From any thread.
  void raise() { write(words()->abort, 1); }
  PeerFailure failure() const { return static_cast<PeerFailure>(read(words()->failure)); }
  const kernels::PeerGroup& group() const { return group_; }
  const Peers& peers() const { return peers_; }

 private:
  HostWords* words() const { return words_.as<HostWords>(); }

  std::vector<PeerMemory> inboxes_;
  kernels::DeviceBuffer turns_;
  kernels::PinnedBuffer words_;
  kernels::PeerGroup group_;
  Peers peers_;
};

class PeerCollective final : public DeviceCollective {
 public:
  PeerCollective(std::unique_ptr<DeviceCollective> library, PeerInboxes inboxes, const NcclOptions& options)
      : device_(kernels::current_device()),
        operation_timeout_(options.operation_timeout),
        library_(std::move(library)),
        inboxes_(std::move(inboxes)) {}

  ~PeerCollective() override {
    inboxes_.raise();
    library_.reset();
    if (kernels::use_device(device_)) kernels::synchronize_device();  // kernels may still look into the inbox
  }

  int rank() const override { return inboxes_.group().rank; }
  int size() const override { return inboxes_.group().ranks; }

  void all_reduce(void* data, size_t count, kernels::Dtype dtype, const kernels::Stream& stream) override {
    throw_if_dead("all_reduce");
    const SumBy by = sum_by(count * kernels::size_of(dtype), size());
    if (by == SumBy::library || !is_aligned(data, 16)) {
      guarded([&] { library_->all_reduce(data, count, dtype, stream); });
    } else if (by == SumBy::one_shot) {
      kernels::peer_sum_cuda(inboxes_.group(), data, count, dtype, stream);
    } else {
      kernels::peer_two_shot_sum_cuda(inboxes_.group(), data, count, dtype, stream);
    }
  }

  bool takes_norm(int32_t tokens, int32_t width, kernels::Dtype dtype) const override {
    if (width > kernels::kMostPeerNormWidth || width % 8 != 0) return false;
    const SumBy by = sum_of_rows(tokens, width, dtype);
    return by == SumBy::one_shot || (by == SumBy::two_shot && kernels::peer_two_shot_takes(size(), width));
  }

  void all_reduce_norm(const kernels::AddRmsNormArgs& args, const kernels::Stream& stream) override {
    throw_if_dead("all_reduce_norm");
    if (sum_of_rows(args.tokens, args.width, args.dtype) == SumBy::one_shot) {
      kernels::peer_sum_norm_cuda(inboxes_.group(), args, stream);
    } else {
      kernels::peer_two_shot_norm_cuda(inboxes_.group(), args, stream);
    }
  }

  void all_gather(const void* send, void* receive, size_t bytes, const kernels::Stream& stream) override {
    throw_if_dead("all_gather");
    if (bytes <= kernels::kMostPeerGatherBytes && bytes % 4 == 0 && is_aligned(send, 4) && is_aligned(receive, 4)) {
      kernels::peer_gather_cuda(inboxes_.group(), send, receive, bytes, stream);
    } else {
      guarded([&] { library_->all_gather(send, receive, bytes, stream); });
    }
  }

  const kernels::PeerGroup* peers() override {
    throw_if_dead("peers");
    return &inboxes_.group();
  }

  void broadcast(void* data, size_t bytes, int root, const kernels::Stream& stream) override {
    throw_if_dead("broadcast");
    guarded([&] { library_->broadcast(data, bytes, root, stream); });
  }

  void wait(const kernels::Event& event) override {
    throw_if_dead("waiting");
    const Clock::time_point deadline = Clock::now() + operation_timeout_;
    while (!event.ready()) {
      look("waiting", deadline);
      std::this_thread::sleep_for(kPollPeriod);
    }
    switch (inboxes_.failure()) {
      case PeerFailure::none:
        return;
      case PeerFailure::aborted:
        die(CollectiveFailure::aborted, "waiting", "aborted");
      case PeerFailure::timeout:
        die(CollectiveFailure::timeout, "waiting", "a peer did not send in time");
    }
  }

  void check() override {
    throw_if_dead("checking");
    look("checking", Clock::time_point::max());
  }

  void abort() override {
    aborted_ = true;
    inboxes_.raise();
    library_->abort();
  }

 private:
  SumBy sum_of_rows(int32_t tokens, int32_t width, kernels::Dtype dtype) const {
    return sum_by(static_cast<uint64_t>(tokens) * static_cast<uint64_t>(width) * kernels::size_of(dtype), size());
  }
  static bool is_aligned(const void* data, uintptr_t bytes) { return reinterpret_cast<uintptr_t>(data) % bytes == 0; }

  void look(const char* name, Clock::time_point deadline) {
    if (aborted_) die(CollectiveFailure::aborted, name, "aborted");
    const Clock::time_point now = Clock::now();
    if (now >= deadline) die(CollectiveFailure::timeout, name, "a peer did not answer in time");
    guarded([&] { library_->check(); });
    const int lost = lost_peer(inboxes_.peers());
    if (lost < 0) return;
    if (!lost_at_) lost_at_ = now;
    if (now - *lost_at_ >= kGrace) {
      die(CollectiveFailure::peer_lost, name, fmt::format("rank {} has ended", lost));
    }
  }

  // An error of the library ends the waits of our kernels, too.
  template <class Call>
  void guarded(const Call& call) {
    try {
      call();
    } catch (const CollectiveError& error) {
      failure_ = error.failure();
      inboxes_.raise();
      throw;
    }
  }

  [[noreturn]] void die(CollectiveFailure failure, const char* name, const std::string& reason) {
    failure_ = failure;
    inboxes_.raise();
    library_->abort();
    try {
      library_->check();  // lets go of the stream
    } catch (const CollectiveError&) {
    }
    throw CollectiveError(failure, fmt::format("{} on rank {} of {}: {}", name, rank(), size(), reason));
  }

  void throw_if_dead(const char* name) {
    if (!failure_ && aborted_) die(CollectiveFailure::aborted, name, "aborted");
    if (!failure_) return;
    throw CollectiveError(*failure_, fmt::format("rank {} of {}: the communicator is dead", rank(), size()));
  }

  const int device_;
  const std::chrono::milliseconds operation_timeout_;
  std::unique_ptr<DeviceCollective> library_;
  PeerInboxes inboxes_;
  std::atomic<bool> aborted_{false};

  // Of the thread that calls the operations.
  std::optional<CollectiveFailure> failure_;
  std::optional<Clock::time_point> lost_at_;  // when a peer's line was first seen closed
};

// What this rank knows of the way to its peers, when all of them have done as much. Throws as the store does.
Result<PeerInboxes> meet_peers(Rendezvous& store, const NcclOptions& options, const PeerOptions& peers) {
  PeerExchangeOptions exchange;
  exchange.rank = options.rank;
  exchange.size = options.size;
  exchange.prefix = options.prefix;
  exchange.timeout = std::min<std::chrono::milliseconds>(options.connect_timeout, kExchangeTimeout);
  auto inboxes = PeerInboxes::make(options, peers);
  Result<PeerOffer> offer = inboxes ? inboxes->offer() : tl::unexpected(inboxes.error());
  auto met = exchange_with_peers(store, exchange, std::move(offer));
  Result<void> good = met ? inboxes->attach(*std::move(met)) : tl::unexpected(met.error());
  if (!all_agree(store, exchange, "attached", good.has_value())) {
    return tl::unexpected(good ? Error{"another rank does not reach its peers"} : good.error());
  }
  good = inboxes->try_out();
  if (!all_agree(store, exchange, "tried", good.has_value())) {
    return tl::unexpected(good ? Error{"a trial sum failed on another rank"} : good.error());
  }
  return inboxes;
}

}  // namespace

Result<std::unique_ptr<DeviceCollective>> make_device_collective(Rendezvous& store, const NcclOptions& options,
                                                                 const PeerOptions& peers) {
  NcclOptions alone = options;
  alone.connect_behind = false;
  const bool has_peers = options.rank >= 0 && options.rank < options.size && options.size > 1;
  if (!peers.enabled || !has_peers) return make_nccl_collective(store, alone);
  try {
    auto inboxes = meet_peers(store, options, peers);
    if (!inboxes) {
      LOG(INFO) << "rank " << options.rank << " sums by NCCL alone: " << inboxes.error().message;
      return make_nccl_collective(store, alone);
    }
    auto library = make_nccl_collective(store, options);
    if (!library) return library;
    return std::make_unique<PeerCollective>(*std::move(library), *std::move(inboxes), options);
  } catch (const CollectiveError& error) {
    return fail("rank {} of {} could not join {}: {}", options.rank, options.size, options.prefix, error.what());
  }
}

}  // namespace lorikeet::comm
