#include "comm/gloo_mesh.h"

#include <fmt/format.h>
#include <gloo/common/error.h>
#include <gloo/rendezvous/context.h>
#include <gloo/transport/unbound_buffer.h>

#include <algorithm>
#include <utility>

#include "comm/sigpipe_guard.h"

namespace lorikeet::comm {
namespace {

constexpr uint64_t kGoodbyeSlot = 0;
constexpr uint64_t kFirstSlot = 1;
constexpr auto kGoodbyeTimeout = std::chrono::milliseconds(100);
constexpr auto kForever = std::chrono::hours(24 * 365);

}  // namespace

GlooMesh::Exchange::Exchange(GlooMesh& mesh, Memory out, Memory in)
    : mesh_(mesh),
      slot_(mesh.next_slot_++),
      out_(mesh.context_->createUnboundBuffer(out.data, out.bytes)),
      in_(mesh.context_->createUnboundBuffer(in.data, in.bytes)) {
  const std::lock_guard lock(mesh_.mutex_);
  mesh_.throw_if_failed();
  mesh_.exchange_ = this;
}

GlooMesh::Exchange::~Exchange() {
  const std::lock_guard lock(mesh_.mutex_);
  mesh_.exchange_ = nullptr;
}

void GlooMesh::Exchange::send(int peer, size_t offset, size_t bytes) {
  out_->send(peer, slot_, offset, bytes);
  ++sends_;
}

void GlooMesh::Exchange::receive(int peer, size_t offset, size_t bytes) {
  in_->recv(peer, slot_, offset, bytes);
  ++receives_;
}

void GlooMesh::Exchange::finish() {
  const auto check = [](bool completed) {
    if (!completed) throw CollectiveError(CollectiveFailure::aborted, "interrupted");  // stop() knows why
  };
  for (; receives_ > 0; --receives_) check(in_->waitRecv(mesh_.time_left()));
  for (; sends_ > 0; --sends_) check(out_->waitSend(mesh_.time_left()));
}

void GlooMesh::Exchange::interrupt() {
  in_->abortWaitRecv();
  out_->abortWaitSend();
}

GlooMesh::GlooMesh(std::shared_ptr<gloo::rendezvous::Context> connected, Milliseconds operation_timeout)
    : context_(std::move(connected)),
      timeout_(operation_timeout),
      next_slot_(kFirstSlot),
      watched_(context_->createUnboundBuffer(&goodbye_, sizeof(goodbye_))) {
  for (int i = 1; i < size(); ++i) peers_.push_back((rank() + i) % size());
  watcher_ = std::thread([this] { watch(); });
}

GlooMesh::~GlooMesh() {
  say_goodbye();
  watched_->abortWaitRecv();
  watcher_.join();
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

void GlooMesh::watch() {
  try {
    for (int peer : peers_) watched_->recv(peer, kGoodbyeSlot);
    for (size_t left = 0; left < peers_.size(); ++left) {
      if (!watched_->waitRecv(kForever)) return;  // this end is going away
    }
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
  for (int peer : peers_) {
    try {
      message->send(peer, kGoodbyeSlot);
      message->waitSend(kGoodbyeTimeout);
    } catch (const std::exception&) {  // the peer was faster
    }
  }
}

GlooMesh::Milliseconds GlooMesh::time_left() const {
  // Rounded up: when Gloo gives up, the deadline has passed.
  return std::max(std::chrono::ceil<Milliseconds>(deadline_ - Clock::now()), Milliseconds(1));
}

}  // namespace lorikeet::comm
