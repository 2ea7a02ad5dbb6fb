#include "actors/supervisor/server.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <caf/all.hpp>
#include <cerrno>
#include <cstring>
#include <future>
#include <optional>
#include <thread>
#include <utility>

#include "actors/supervisor/cluster_processes.h"
#include "actors/supervisor/messages.h"
#include "actors/supervisor/process_keeper.h"
#include "actors/supervisor/supervisor.h"
#include "actors/wire/descriptor_reserve.h"
#include "actors/wire/system_config.h"
#include "comm/client/zmq_server.h"

namespace lorikeet::actors {
namespace {

class ServerImpl final : public Server {
 public:
  // door: of a cluster of several hosts; none: all processes are of this one.
  ServerImpl(const ServerOptions& options, ServerCallbacks callbacks, int stop_event, const ClusterOptions& cluster,
             std::optional<ClusterDoor> door)
      : callbacks_(std::move(callbacks)),
        stop_event_(stop_event),
        config_(options, Networking::none, 1),
        system_(config_) {
    std::promise<SupervisorActor> spawned;
    supervisor_ = spawned.get_future().share();
    const auto said = [this](Processes::ChildId child, ChildReport report) {
      caf::anon_send(supervisor_.get(), ChildSaid{child, std::move(report)});
    };
    const auto exited = [this](Processes::ChildId child, std::string how, bool on_purpose, int signal) {
      caf::anon_send(supervisor_.get(), ChildExited{child, std::move(how), on_purpose, signal});
    };
    const auto progress = [this](const std::string& line) {
      if (callbacks_.on_progress) callbacks_.on_progress(line);
    };
    if (door) {
      processes_ = std::make_unique<ClusterProcesses>(cluster, options, *std::move(door),
                                                      ClusterProcesses::Callbacks{said, exited, progress});
    } else {
      processes_ = std::make_unique<ProcessKeeper>(ProcessKeeper::Callbacks{said, exited});
    }
    SupervisorSetup setup;
    setup.options = options;
    setup.processes = processes_.get();
    setup.progress = progress;
    setup.failure = [this](const std::string& why) {
      if (callbacks_.on_failure) callbacks_.on_failure(why);
    };
    setup.loading = [this](int32_t rank, int32_t done, int32_t total) {
      if (callbacks_.on_loading) callbacks_.on_loading(rank, done, total);
    };
    setup.ready = [this](const control::Ready& ready) {
      address_ = ready.address;
      if (callbacks_.on_ready) callbacks_.on_ready({ready.address, ready.http_port, ready.kv_cache_tokens});
    };
    setup.stopped = [this, configured = options.zmq_address](int status) {
      for (const std::string& address : {configured, address_}) comm::remove_dead_socket(address);
      stopped_.set_value(status);
    };
    spawned.set_value(system_.spawn(supervisor, std::move(setup)));
    status_ = stopped_.get_future().share();
    stop_thread_ = std::thread([this] { forward_stop(); });
  }

  ~ServerImpl() override {
    if (!stop_requested_) request_stop();
    status_.wait();
    request_stop();  // for the thread that waits for the second request
    stop_thread_.join();
    caf::anon_send_exit(supervisor_.get(), caf::exit_reason::user_shutdown);
    close(stop_event_);
  }

  void request_stop() override {
    stop_requested_ = true;
    const uint64_t one = 1;
    if (write(stop_event_, &one, sizeof(one)) < 0) return;  // full: it has been requested long since
  }

  int wait() override { return status_.get(); }

 private:
  // The first request ends the server in order, the second at once; it takes no third.
  void forward_stop() {
    for (int forwarded = 0; forwarded < 2; ++forwarded) {
      uint64_t count = 0;
      while (read(stop_event_, &count, sizeof(count)) < 0 && errno == EINTR) {
      }
      caf::anon_send(supervisor_.get(), StopServer{});
    }
  }

  ServerCallbacks callbacks_;
  const int stop_event_;
  std::string address_;  // of the clients' socket, once it is there; of the supervisor's thread
  std::atomic<bool> stop_requested_{false};
  std::promise<int> stopped_;
  std::shared_future<int> status_;
  SystemConfig config_;
  caf::actor_system system_;
  std::shared_future<SupervisorActor> supervisor_;
  std::unique_ptr<Processes> processes_;  // before the system: its threads send
  std::thread stop_thread_;
};

}  // namespace

Result<std::unique_ptr<Server>> Server::start(const ServerOptions& options, ServerCallbacks callbacks,
                                              const ClusterOptions& cluster) {
  if (auto ok = raise_descriptor_limit(); !ok) return tl::unexpected(ok.error());
  std::optional<ClusterDoor> door;
  if (cluster.nnodes > 1) {
    auto opened = open_cluster(cluster);
    if (!opened) return tl::unexpected(opened.error());
    door = *std::move(opened);
  }
  const int stop_event = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
  if (stop_event < 0) return fail("no event descriptor: {}", std::strerror(errno));
  return std::make_unique<ServerImpl>(options, std::move(callbacks), stop_event, cluster, std::move(door));
}

Result<std::string> dry_run_placement(const ServerOptions& options, const ClusterOptions& cluster,
                                      std::function<void(const std::string&)> progress) {
  auto door = open_cluster(cluster);
  if (!door) return tl::unexpected(door.error());
  ClusterProcesses processes(cluster, options, *std::move(door), {{}, {}, std::move(progress)});
  return processes.wait_for_placement();
}

}  // namespace lorikeet::actors
