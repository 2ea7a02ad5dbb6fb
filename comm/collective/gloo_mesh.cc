#include "comm/collective/gloo_mesh.h"

#include <fmt/format.h>
#include <gloo/common/error.h>
#include <gloo/rendezvous/context.h>
#include <gloo/transport/unbound_buffer.h>

#include <algorithm>
#include <utility>

#include "comm/collective/sigpipe_guard.h"

namespace lorikeet::comm {
namespace {

constexpr uint64_t kGoodbyeSlot = 0;
constexpr uint64_t kFirstSlot = 1;
constexpr auto kGoodbyeTimeout = std::chrono::milliseconds(100);  // for a peer to take ours
constexpr auto kLeaveTogether = std::chrono::seconds(1);          // for the others to leave too
constexpr auto kForever = std::chrono::hours(24 * 365);

std::vector<int> peers_of(int rank, int size) {
  std::vector<int> peers;
  for (int i = 1; i < size; ++i) peers.push_back((rank + i) % size);
  return peers;
}

}  // namespace

GlooMesh::Exchange::Exchange(GlooMesh& mesh, Memory out, Memory in)
    : mesh_(mesh),
      in_(static_cast<char*>(in.data)),
      out_(mesh.context_->createUnboundBuffer(out.data, out.bytes)),
      slot_(mesh.next_slot_++),
      large_(mesh.size()) {
  const std::lock_guard lock(mesh_.mutex_);
  mesh_.throw_if_failed();
  mesh_.exchange_ = this;
}

GlooMesh::Exchange::~Exchange() {
  const std::lock_guard lock(mesh_.mutex_);
  mesh_.exchange_ = nullptr;
}

void GlooMesh::Exchange::expect(int peer, size_t offset, size_t bytes) {
  if (bytes <= GlooInbox::kMessageBytes) return;
  auto buffer = mesh_.context_->createUnboundBuffer(in_ + offset, bytes);
  buffer->recv(peer, slot_);
  const std::lock_guard lock(mesh_.mutex_);
  large_[peer] = std::move(buffer);
  if (mesh_.failure_) large_[peer]->abortWaitRecv();
  if (mesh_.goodbyes_[peer].said) large_[peer]->abortWaitRecv();
}

void GlooMesh::Exchange::send(int peer, size_t offset, size_t bytes) {
  out_->send(peer, bytes <= GlooInbox::kMessageBytes ? mesh_.inbox_.next_slot_to(peer) : slot_, offset, bytes);
  ++sends_;
}

const char* GlooMesh::Exchange::take(int peer) {
  if (large_[peer] != nullptr) {
    mesh_.wait_for(*large_[peer]);
    return static_cast<const char*>(large_[peer]->ptr);
  }
  if (!std::exchange(reposted_, true)) mesh_.inbox_.repost();
  gloo::transport::UnboundBuffer& message = mesh_.inbox_.next_from(peer);
  mesh_.wait_for(message);
  mesh_.inbox_.taken_from(peer);
  return static_cast<const char*>(message.ptr);
}

void GlooMesh::Exchange::finish() {
  for (; sends_ > 0; --sends_) {
    if (out_->waitSend(mesh_.time_left())) continue;
    throw CollectiveError(CollectiveFailure::aborted, "interrupted");  // stop() knows why
  }
}

void GlooMesh::Exchange::interrupt() {
  out_->abortWaitSend();
  for (int peer : mesh_.peers_) interrupt(peer);
}

void GlooMesh::Exchange::interrupt(int peer) {
  if (large_[peer] != nullptr) large_[peer]->abortWaitRecv();
}

GlooMesh::GlooMesh(std::shared_ptr<gloo::rendezvous::Context> connected, Milliseconds operation_timeout)
    : context_(std::move(connected)),
      timeout_(operation_timeout),
      peers_(peers_of(context_->rank, context_->size)),
      inbox_(*context_, peers_),
      next_slot_(kFirstSlot),
      goodbyes_(context_->size) {
  for (int peer : peers_) {
    Goodbye& goodbye = goodbyes_[peer];
    goodbye.buffer = context_->createUnboundBuffer(&goodbye.memory, sizeof(goodbye.memory));
    goodbye.buffer->recv(peer, kGoodbyeSlot);
  }
  for (int peer : peers_) goodbyes_[peer].watcher = std::thread([this, peer] { watch(peer); });
}

GlooMesh::~GlooMesh() {
  say_goodbye();
  for (int peer : peers_) {
    goodbyes_[peer].buffer->abortWaitRecv();
    goodbyes_[peer].watcher.join();
  }
  context_->closeConnections();
}

int GlooMesh::rank() const {
  return context_->rank;
}

int GlooMesh::size() const {
  return context_->size;
}

void GlooMesh::run(const char* name, const std::function<void()>& operation) {
  {
    const std::lock_guard lock(mutex_);
    throw_if_failed();
    in_operation_ = true;
    deadline_ = Clock::now() + timeout_;
  }
  const SigpipeGuard guard;
  CollectiveFailure failure = CollectiveFailure::peer_lost;
  std::string reason;
  try {
    operation();
    const std::lock_guard lock(mutex_);
    in_operation_ = false;
    if (failure_) context_->closeConnections();  // stopped, but too late to end this operation
    return;
  } catch (const CollectiveError& error) {
    failure = error.failure();
    reason = error.what();
  } catch (const std::exception& error) {  // gloo::IoException and what else Gloo throws
    reason = error.what();
  }
  const std::lock_guard lock(mutex_);
  if (failure == CollectiveFailure::peer_lost) failure = lost_or_late();
  in_operation_ = false;
  if (!failure_) {
    failure_ = failure;
    reason_ = reason;
  }
  context_->closeConnections();
  throw CollectiveError(*failure_, fmt::format("{} on rank {} of {}: {}", name, rank(), size(), reason_));
}

void GlooMesh::abort() {
  const std::lock_guard lock(mutex_);
  stop(CollectiveFailure::aborted, "aborted");
}

void GlooMesh::stop(CollectiveFailure failure, const std::string& reason) {
  if (!failure_) {
    failure_ = failure;
    reason_ = reason;
  }
  changed_.notify_all();
  for (int peer : peers_) inbox_.interrupt(peer);
  if (exchange_ != nullptr) {
    exchange_->interrupt();
  } else if (!in_operation_) {  // a running operation closes them on its way out
    context_->closeConnections();
  }
}

CollectiveFailure GlooMesh::lost_or_late() const {
  // Gloo closes all connections when a wait of ours takes too long, which then looks like a loss.
  return in_operation_ && Clock::now() >= deadline_ ? CollectiveFailure::timeout : CollectiveFailure::peer_lost;
}

void GlooMesh::throw_if_failed() const {
  if (!failure_) return;
  throw CollectiveError(*failure_,
                        fmt::format("the communicator of rank {} of {} is dead: {}", rank(), size(), reason_));
}

void GlooMesh::wait_for(gloo::transport::UnboundBuffer& message) {
  if (message.waitRecv(time_left())) return;
  // Interrupted, by stop() or since the peer has left. In the latter case all that it ever sent has arrived: the
  // message is there, or it never comes.
  {
    const std::lock_guard lock(mutex_);
    throw_if_failed();
  }
  if (!message.waitRecv(Milliseconds(1))) throw CollectiveError(CollectiveFailure::aborted, "interrupted");
}

void GlooMesh::watch(int peer) {
  Goodbye& goodbye = goodbyes_[peer];
  try {
    if (!goodbye.buffer->waitRecv(kForever)) return;  // this end is going away
    const std::lock_guard lock(mutex_);
    goodbye.said = true;
    changed_.notify_all();
    inbox_.interrupt(peer);
    if (exchange_ != nullptr) exchange_->interrupt(peer);
  } catch (const std::exception& error) {
    const std::lock_guard lock(mutex_);
    stop(lost_or_late(), error.what());
  }
}

void GlooMesh::say_goodbye() {
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return;
  }
  const SigpipeGuard guard;
  char goodbye = 0;
  const auto message = context_->createUnboundBuffer(&goodbye, sizeof(goodbye));
  try {
    for (int peer : peers_) {
      message->send(peer, kGoodbyeSlot);
      message->waitSend(kGoodbyeTimeout);
    }
  } catch (const std::exception&) {  // a peer is lost, or hears nothing
    return;
  }
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kLeaveTogether, [this] {
    return failure_.has_value() ||
           std::all_of(peers_.begin(), peers_.end(), [this](int p) { return goodbyes_[p].said; });
  });
}

GlooMesh::Milliseconds GlooMesh::time_left() const {
  // Rounded up: when Gloo gives up, the deadline has passed.
  return std::max(std::chrono::ceil<Milliseconds>(deadline_ - Clock::now()), Milliseconds(1));
}

}  // namespace lorikeet::comm
