#include "launcher/local_server.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <mutex>
#include <string_view>
#include <utility>

namespace lorikeet::launcher {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "lorikeet-run-";

// void where somebody else has it, or where there is no such directory of ours.
Descriptor lock_directory(const fs::path& path) {
  Descriptor directory(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat about = {};
  if (!directory || fstat(directory.get(), &about) != 0 || about.st_uid != geteuid()) return {};
  if (flock(directory.get(), LOCK_EX | LOCK_NB) != 0) return {};
  return directory;
}

void remove_stale_directories(const fs::path& parent) {
  std::error_code error;
  for (fs::directory_iterator it(parent, error), end; !error && it != end; it.increment(error)) {
    const fs::path& path = it->path();
    if (path.filename().string().rfind(kPrefix, 0) != 0) continue;
    std::error_code ignored;
    if (const Descriptor lock = lock_directory(path)) fs::remove_all(path, ignored);
  }
}

}  // namespace

Result<TemporaryDirectory> TemporaryDirectory::make() {
  std::error_code error;
  const fs::path parent = fs::temp_directory_path(error);
  if (error) return fail("no directory for temporary files: {}", error.message());
  remove_stale_directories(parent);
  constexpr int kAttempts = 100;  // another process may find it before it is locked, and remove it as a stale one
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    std::string pattern = (parent / (std::string(kPrefix) + "XXXXXX")).string();
    if (mkdtemp(pattern.data()) == nullptr) return fail("cannot make a directory {}", pattern);
    TemporaryDirectory directory;
    directory.path_ = pattern;
    directory.lock_ = lock_directory(directory.path_);
    struct stat about = {};
    if (directory.lock_ && fstat(directory.lock_.get(), &about) == 0 && about.st_nlink > 0) return directory;
  }
  return fail("cannot make a directory in {}", parent.string());
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  if (lock_) fs::remove_all(path_, ignored);
}

LocalServer::LocalServer(std::unique_ptr<StopSignals> signals, TemporaryDirectory directory,
                         std::unique_ptr<actors::Server> server)
    : signals_(std::move(signals)),
      directory_(std::move(directory)),
      server_(std::move(server)),
      done_(std::async(std::launch::async, [this] { return server_->wait(); })) {
  signals_->route_to(server_.get());
}

LocalServer::~LocalServer() {
  if (!signals_->received()) server_->request_stop();  // a second request would not wait for an orderly end
  signals_->route_to(nullptr);
}

bool LocalServer::stopped() const {
  return done_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

Result<std::unique_ptr<LocalServer>> LocalServer::start(const std::string& command, actors::ServerOptions options) {
  auto signals = std::make_unique<StopSignals>();
  auto directory = TemporaryDirectory::make();
  if (!directory) return tl::unexpected(directory.error());
  options.zmq_address = "ipc://" + (directory->path() / "zmq").string();

  auto ready = std::make_shared<std::promise<void>>();
  auto told = ready->get_future();
  const auto progress = std::make_shared<ServerProgress>(command, options.tensor_parallel_size);
  actors::ServerCallbacks callbacks = ServerProgress::callbacks(progress);
  // What ends the server before it serves is the error of this call, and said by whoever gets that.
  struct Failure {
    std::mutex mutex;
    std::string why;
    bool serves = false;
  };
  const auto failure = std::make_shared<Failure>();
  callbacks.on_failure = [failure, say = callbacks.on_failure](const std::string& why) {
    const std::lock_guard lock(failure->mutex);
    failure->serves ? say(why) : void(failure->why = why);
  };
  callbacks.on_ready = [ready, failure](const actors::ServerReady&) {
    {
      const std::lock_guard lock(failure->mutex);
      failure->serves = true;
    }
    ready->set_value();
  };
  auto server = actors::Server::start(options, std::move(callbacks));
  if (!server) return tl::unexpected(server.error());
  std::unique_ptr<LocalServer> local(new LocalServer(std::move(signals), *std::move(directory), *std::move(server)));
  while (told.wait_for(std::chrono::milliseconds(50)) != std::future_status::ready) {
    if (!local->stopped()) continue;
    const std::lock_guard lock(failure->mutex);
    return fail("{}", failure->why.empty() ? "the server did not start" : failure->why);
  }
  local->progress_ = progress;
  local->address_ = options.zmq_address;
  auto client = local->connect();
  if (!client) return tl::unexpected(client.error());
  local->client_ = *std::move(client);
  return local;
}

Result<std::unique_ptr<comm::ZmqClient>> LocalServer::connect() const {
  return comm::ZmqClient::connect(address_);
}

}  // namespace lorikeet::launcher
