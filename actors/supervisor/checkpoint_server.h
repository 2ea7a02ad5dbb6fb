// Reads the checkpoint of this host to others that have no copy (actors/wire/checkpoint_message.h).
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

// A thread for each connection, kMaxStreams at the most: who comes when there are as many, or has kCheckpointStreams
// already, is cut off and may come again. What is asked for is checked against the list of files alone: configuration,
// tokenizer and tensors, nothing else of the directory.
// Threads: any.
class CheckpointServer {
 public:
  static constexpr size_t kMaxStreams = 64;
  static constexpr std::chrono::seconds kPatience{30};  // with one who neither asks nor takes

  explicit CheckpointServer(std::string directory) : directory_(std::move(directory)) {}
  ~CheckpointServer();  // ends all

  void serve(comm::TlsConnection connection, uint64_t host);
  void end(uint64_t host);  // what it has is cut off

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
