// Serves the checkpoint of this host to hosts that have no copy (actors/wire/checkpoint_message.h).
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "comm/cluster/tls_stream.h"

namespace lorikeet::actors {

// A thread for each connection. A connection beyond kMaxStreams, or beyond kCheckpointStreams of one host, is cut and may be
// tried again. Only files of a fixed list can be asked for (configuration, tokenizer, tensors), nothing else of the
// directory.
// Threads: any.
class CheckpointServer {
 public:
  static constexpr size_t kMaxStreams = 64;
  static constexpr std::chrono::seconds kPatience{30};  // with a connection that neither asks nor reads

  explicit CheckpointServer(std::string directory) : directory_(std::move(directory)) {}
  ~CheckpointServer();  // ends all

  void serve(comm::TlsConnection connection, uint64_t host);
  void end(uint64_t host);  // cuts its connections

 private:
  struct Stream {
    Stream(comm::TlsConnection connection, uint64_t of) : stream(std::move(connection), kPatience), host(of) {}
    comm::TlsStream stream;
    const uint64_t host;
    std::atomic<bool> over{false};
    std::thread thread;
  };

  void read_to(comm::TlsStream& stream) const;

  const std::string directory_;
  std::mutex mutex_;  // guards what follows
  std::list<std::unique_ptr<Stream>> streams_;
};

}  // namespace lorikeet::actors
