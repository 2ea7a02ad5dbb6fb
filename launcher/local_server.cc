#include "launcher/local_server.h"

#include <fmt/format.h>
#include <stdlib.h>

#include <chrono>
#include <mutex>
#include <utility>

namespace lorikeet::launcher {

Result<TemporaryDirectory> TemporaryDirectory::make() {
  std::string pattern = (std::filesystem::temp_directory_path() / "lorikeet-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) return fail("cannot make a directory {}", pattern);
  TemporaryDirectory directory;
  directory.path_ = pattern;
  return directory;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

LocalServer::LocalServer(TemporaryDirectory directory, std::unique_ptr<actors::Server> server)
    : directory_(std::move(directory)),
      server_(std::move(server)),
      signals_(*server_),
      done_(std::async(std::launch::async, [this] { return server_->wait(); })) {}

LocalServer::~LocalServer() {
  server_->request_stop();
}

bool LocalServer::stopped() const {
  return done_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

Result<std::unique_ptr<LocalServer>> LocalServer::start(actors::ServerOptions options) {
  auto directory = TemporaryDirectory::make();
  if (!directory) return tl::unexpected(directory.error());
  options.zmq_address = "ipc://" + (directory->path() / "zmq").string();

  auto ready = std::make_shared<std::promise<void>>();
  auto told = ready->get_future();
  actors::ServerCallbacks callbacks;
  callbacks.on_progress = [](const std::string& line) { fmt::print(stderr, "{}\n", line); };
  callbacks.on_ready = [ready, once = std::make_shared<std::once_flag>()](const std::string&) {
    std::call_once(*once, [&] { ready->set_value(); });  // told again when a lost head has come back
  };
  auto server = actors::Server::start(options, std::move(callbacks));
  if (!server) return tl::unexpected(server.error());
  std::unique_ptr<LocalServer> local(new LocalServer(*std::move(directory), *std::move(server)));
  while (told.wait_for(std::chrono::milliseconds(50)) != std::future_status::ready) {
    if (local->stopped()) return fail("the server did not start");
  }
  auto client = comm::ZmqClient::connect(options.zmq_address);
  if (!client) return tl::unexpected(client.error());
  local->client_ = *std::move(client);
  return local;
}

}  // namespace lorikeet::launcher
