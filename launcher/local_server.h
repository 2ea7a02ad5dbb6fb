// A server that only this process can reach, over a socket in its own directory: `batch` and `bench` send requests to it.
#pragma once

#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <string>

#include "actors/supervisor/server.h"
#include "comm/client/zmq_client.h"
#include "kernels/base/descriptor.h"
#include "kernels/base/error.h"
#include "launcher/server_progress.h"
#include "launcher/stop_signals.h"

namespace lorikeet::launcher {

// A directory that is removed, with its content, at the end. It is locked while its owner lives, so that directories of
// killed owners are recognised, and removed when the next one is made.
class TemporaryDirectory {
 public:
  static Result<TemporaryDirectory> make();
  ~TemporaryDirectory();
  TemporaryDirectory(TemporaryDirectory&& other) noexcept = default;
  TemporaryDirectory& operator=(TemporaryDirectory&& other) noexcept = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  TemporaryDirectory() = default;
  std::filesystem::path path_;
  Descriptor lock_;  // void: moved from
};

// Stops the server at the end. SIGINT, SIGTERM and SIGHUP stop it earlier.
class LocalServer {
 public:
  // Starts the server and waits until it serves; options.zmq_address is chosen here. Progress goes to standard error,
  // and so does what goes wrong later, behind `command`, such as "lorikeet batch".
  static Result<std::unique_ptr<LocalServer>> start(const std::string& command, actors::ServerOptions options);
  ~LocalServer();

  comm::ZmqClient& client() { return *client_; }
  Result<std::unique_ptr<comm::ZmqClient>> connect() const;  // another client, for another thread
  ProgressLine& progress() { return progress_->line(); }     // what the server says stands above it
  bool stopped() const;                                      // on its own, or by a signal: nobody answers any more
  int signal() const { return signals_->received(); }        // that stopped it; 0: none

 private:
  LocalServer(std::unique_ptr<StopSignals> signals, TemporaryDirectory directory,
              std::unique_ptr<actors::Server> server);

  std::shared_ptr<ServerProgress> progress_;
  std::unique_ptr<StopSignals> signals_;
  TemporaryDirectory directory_;
  std::unique_ptr<actors::Server> server_;
  std::future<int> done_;
  std::string address_;
  std::unique_ptr<comm::ZmqClient> client_;
};

}  // namespace lorikeet::launcher
