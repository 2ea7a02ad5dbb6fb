#include "actors/supervisor/server.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include <array>
#include <caf/all.hpp>
#include <cerrno>
#include <cstring>
#include <future>
#include <thread>
#include <utility>

#include "actors/supervisor/messages.h"
#include "actors/supervisor/process_keeper.h"
#include "actors/supervisor/supervisor.h"
#include "actors/wire/system_config.h"

namespace lorikeet::actors {
namespace {

// By which the head tells its ranks from strangers on its port.
Result<std::string> make_secret() {
  std::array<unsigned char, 16> bytes{};
  if (getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    return fail("no random bytes from the system: {}", std::strerror(errno));
  }
  std::string secret;
  for (const unsigned char byte : bytes) secret += fmt::format("{:02x}", byte);
  return secret;
}

class ServerImpl final : public Server {
 public:
  ServerImpl(const ServerOptions& options, ServerCallbacks callbacks, std::string secret, int stop_event)
      : callbacks_(std::move(callbacks)),
        stop_event_(stop_event),
        config_(options, Networking::none, 1),
        system_(config_),
        keeper_({[this](ProcessKeeper::ChildId child, ChildReport report) {
                   caf::anon_send(supervisor_.get(), ChildSaid{child, std::move(report)});
                 },
                 [this](ProcessKeeper::ChildId child, std::string how, bool on_purpose) {
                   caf::anon_send(supervisor_.get(), ChildExited{child, std::move(how), on_purpose});
                 }}) {
    std::promise<SupervisorActor> spawned;
    supervisor_ = spawned.get_future().share();
    SupervisorSetup setup;
    setup.options = options;
    setup.secret = std::move(secret);
    setup.processes = &keeper_;
    setup.progress = [this](const std::string& line) {
      if (callbacks_.on_progress) callbacks_.on_progress(line);
    };
    setup.ready = [this](const std::string& address) {
      if (callbacks_.on_ready) callbacks_.on_ready(address);
    };
    setup.stopped = [this](int status) { stopped_.set_value(status); };
    spawned.set_value(system_.spawn(supervisor, std::move(setup)));
    status_ = stopped_.get_future().share();
    stop_thread_ = std::thread([this] { forward_stop(); });
  }

  ~ServerImpl() override {
    request_stop();
    status_.wait();
    stop_thread_.join();
    caf::anon_send_exit(supervisor_.get(), caf::exit_reason::user_shutdown);
    close(stop_event_);
  }

  void request_stop() override {
    const uint64_t one = 1;
    if (write(stop_event_, &one, sizeof(one)) < 0) return;  // full: it has been requested long since
  }

  int wait() override { return status_.get(); }

 private:
  void forward_stop() {
    uint64_t count = 0;
    while (read(stop_event_, &count, sizeof(count)) < 0 && errno == EINTR) {
    }
    caf::anon_send(supervisor_.get(), StopServer{});
  }

  ServerCallbacks callbacks_;
  const int stop_event_;
  std::promise<int> stopped_;
  std::shared_future<int> status_;
  SystemConfig config_;
  caf::actor_system system_;
  std::shared_future<SupervisorActor> supervisor_;
  ProcessKeeper keeper_;  // before the system: its threads send
  std::thread stop_thread_;
};

}  // namespace

Result<std::unique_ptr<Server>> Server::start(const ServerOptions& options, ServerCallbacks callbacks) {
  auto secret = make_secret();
  if (!secret) return tl::unexpected(secret.error());
  const int stop_event = eventfd(0, EFD_CLOEXEC);
  if (stop_event < 0) return fail("no event descriptor: {}", std::strerror(errno));
  return std::make_unique<ServerImpl>(options, std::move(callbacks), *std::move(secret), stop_event);
}

}  // namespace lorikeet::actors
