#include "comm/collective/gloo_inbox.h"

#include <gloo/rendezvous/context.h>
#include <gloo/transport/unbound_buffer.h>

#include <utility>

namespace lorikeet::comm {
namespace {

constexpr uint64_t kFirstInboxSlot = uint64_t{1} << 62;  // away from those of the mesh

}  // namespace

GlooInbox::GlooInbox(gloo::rendezvous::Context& context, std::vector<int> peers)
    : peers_(std::move(peers)), state_(context.size) {
  for (int peer : peers_) {
    for (Buffer& buffer : state_[peer].buffers) {
      buffer.memory.reset(new char[kMessageBytes]);
      buffer.handle = context.createUnboundBuffer(buffer.memory.get(), kMessageBytes);
    }
  }
  repost();
}

GlooInbox::~GlooInbox() = default;

uint64_t GlooInbox::next_slot_to(int peer) {
  return kFirstInboxSlot + state_[peer].sent++;
}

gloo::transport::UnboundBuffer& GlooInbox::next_from(int peer) {
  Peer& state = state_[peer];
  return *state.buffers[state.received % kAhead].handle;
}

void GlooInbox::taken_from(int peer) {
  ++state_[peer].received;
}

void GlooInbox::repost() {
  for (int peer : peers_) {
    Peer& state = state_[peer];
    for (; state.posted < state.received + kAhead; ++state.posted) {
      state.buffers[state.posted % kAhead].handle->recv(peer, kFirstInboxSlot + state.posted);
    }
  }
}

void GlooInbox::interrupt(int peer) {
  for (Buffer& buffer : state_[peer].buffers) buffer.handle->abortWaitRecv();
}

}  // namespace lorikeet::comm
