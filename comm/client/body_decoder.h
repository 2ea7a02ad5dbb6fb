// Decodes large bodies of clients' messages on a thread of its own, so that the door's thread goes on serving the other
// clients, which would take its silence for the loss of the server.
//
// Clients take turns, so that a flood delays only the client that sent it. The messages of one client keep their order.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>
#include <zmq.hpp>

#include "comm/client/frames.h"
#include "comm/client/zmq_server.h"

namespace lorikeet::comm {

using ClientFrames = std::vector<zmq::message_t>;  // version, encoding, kind, body; what else a client has sent

tl::expected<Decoded<ClientFrame>, Malformed> decode(const ClientFrames& frames, size_t max_body_bytes);
size_t bytes_of(const ClientFrames& frames);

// Threads: one, the door's, for everything but `wake`.
class BodyDecoder {
 public:
  struct Item {
    ClientId client = 0;
    tl::expected<Decoded<ClientFrame>, Malformed> message;
  };

  // wake: there is something to take now. Called on the decoder's thread.
  BodyDecoder(size_t max_body_bytes, std::function<void()> wake);
  ~BodyDecoder();
  BodyDecoder(const BodyDecoder&) = delete;
  BodyDecoder& operator=(const BodyDecoder&) = delete;

  void add(ClientId client, ClientFrames frames);
  void forget(ClientId client);  // it is gone: drops what waits of it
  std::vector<Item> take();      // what has been decoded
  void discard(Item item);       // frees what nobody wants any more: a million messages take time
  size_t waiting_bytes() const { return waiting_bytes_; }  // that have not been decoded

 private:
  void run();

  const size_t max_body_bytes_;
  const std::function<void()> wake_;
  std::atomic<size_t> waiting_bytes_{0};

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::unordered_map<ClientId, std::deque<ClientFrames>> waiting_;  // none is empty
  std::deque<ClientId> turns_;                                      // the clients of waiting_, each once
  ClientId working_for_ = 0;                                        // 0: nobody, or somebody who is gone
  std::vector<Item> decoded_;
  std::vector<Item> discarded_;
  bool stopping_ = false;

  std::thread thread_;  // last: it uses the rest
};

}  // namespace lorikeet::comm
