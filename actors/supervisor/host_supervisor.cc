#include "actors/supervisor/host_supervisor.h"

#include <fmt/format.h>
#include <openssl/rand.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <future>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "actors/supervisor/checkpoint_fetch.h"
#include "actors/supervisor/host_link.h"
#include "actors/supervisor/process_keeper.h"
#include "actors/supervisor/rank_fetches.h"
#include "actors/wire/descriptor_reserve.h"
#include "comm/cluster/interfaces.h"
#include "comm/cluster/keys.h"
#include "comm/cluster/tls_dial.h"
#include "comm/cluster/tls_relay.h"
#include "comm/codec/codec.h"
#include "model/checkpoint/checkpoint.h"

namespace lorikeet::actors {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kFirstPause{100}, kMostPause{5'000};  // between dials
constexpr milliseconds kFirstBeat{500};                      // until the head says another one
constexpr size_t kMostEarlyOrders = 16;                      // to a rank before it is started

// What a host dials the head with, once for its link and once for each rank.
struct Door {
  std::shared_ptr<const comm::TlsContext> context;
  comm::DialOptions dial;

  Result<comm::TlsConnection> open(const JoinRequest& request) const {
    return comm::dial(*context, dial, comm::encode(request));
  }
};

// One life of the link, with the ranks that were started over it.
class Lending {
 public:
  using Progress = std::function<void(const std::string&)>;

  Lending(const Door& door, comm::TlsRelay& relay, Descriptor plain, const WorkerOptions& options,
          const std::string& program, CheckpointFetcher& fetcher, Progress progress, std::function<void()> over)
      : door_(door),
        relay_(relay),
        options_(options),
        progress_(std::move(progress)),
        over_(std::move(over)),
        link_(std::move(plain), kFirstBeat),
        keeper_({[this](ProcessKeeper::ChildId kept, ChildReport report) { said(kept, std::move(report)); },
                 [this](ProcessKeeper::ChildId kept, std::string how, bool on_purpose, int signal) {
                   exited(kept, std::move(how), on_purpose, signal);
                 },
                 [this](ProcessKeeper::ChildId kept, const ChildStart& start, HeadEnds ends) {
                   connect(kept, start, std::move(ends.connection));
                 }},
                program),
        fetches_(fetcher, [this] { return door_.open(host::ReadCheckpoint{secret()}); },
                 {[this](uint64_t child, ChildStart start) { spawn(child, std::move(start)); },
                  [this](uint64_t child, const std::string& why) {
                    forget_early(child);
                    report_to_head(host::RankExited{child, "cannot be started: " + why, false, 0});
                  },
                  progress_, [this](const ChildStart& start) { return has_checkpoint(start); }}) {
    link_.start({[this](ControlChannel& channel) { return hear(channel); },
                 [this](ControlChannel& channel) { beat(channel); }, [this](const std::string& why) { lost(why); }});
  }

  // Ends the link first, so that nothing more is reported about the ranks, then kills and reaps them. Does not wait for
  // fetches, which end when a connection or a disk lets them.
  ~Lending() {
    link_.stop();
    for (const auto& [child, kept] : all_kept()) keeper_.kill(kept);
  }

  // nullopt: this host was admitted; else why not.
  std::optional<std::string> refusal() const {
    const std::lock_guard lock(mutex_);
    return refusal_;
  }

 private:
  // ---- on the link's thread

  bool hear(ControlChannel& channel) {
    auto order = channel.receive_host_order();
    if (!order || !*order) return false;
    return std::visit([this](auto& what) { return take(what); }, **order);
  }

  bool take(host::Admitted& admitted) {
    if (!admitted.refused.empty()) {
      const std::lock_guard lock(mutex_);
      refusal_ = "the head refuses this host: " + admitted.refused;
      return false;
    }
    link_.set_beat(milliseconds(std::clamp(admitted.heartbeat_ms, 10, 60'000)));
    const size_t lent = options_.devices.numbers.size();
    progress_(fmt::format("lending {} device{} to {}:{} (epoch {})", lent, lent == 1 ? "" : "s", options_.master_addr,
                          options_.master_port, admitted.epoch));
    const std::lock_guard lock(mutex_);
    secret_ = std::move(admitted.link);
    refusal_.reset();
    return true;
  }

  bool take(host::StartRank& order) {
    ChildStart& start = order.start;
    if (start.rank < 0) return false;  // a head does not run here
    if (!options_.model.empty()) start.options.model = options_.model;
    start.place.interface_name = comm::interface_with(start.place.address);
    if (!options_.model.empty()) {
      spawn(order.child, std::move(start));
      return true;
    }
    {
      const std::lock_guard lock(mutex_);
      early_[order.child];
    }
    fetches_.add(order.child, std::move(start));
    tell_fetches(link_.channel());
    return true;
  }

  bool take(const host::TellRank& order) {
    if (waits(order)) return true;
    if (const auto kept = kept_of(order.child)) keeper_.tell(*kept, order.order);
    return true;
  }

  bool take(const host::KillRank& order) {
    if (fetches_.remove(order.child)) {
      forget_early(order.child);
      report_to_head(host::RankExited{order.child, "was not wanted any more", true, 0});
      return true;
    }
    if (const auto kept = kept_of(order.child)) keeper_.kill(*kept);
    return true;
  }

  bool take(const host::Beat&) { return true; }

  bool take(const host::DropRegions& order) {
    keeper_.drop_regions(order.rank);
    return true;
  }

  void beat(ControlChannel& channel) {
    for (const auto& [child, kept] : all_kept()) {
      (void)channel.send(HostReport(host::RankState{child, keeper_.is_stopped(kept), keeper_.describe(kept), false}));
    }
    tell_fetches(channel);
    (void)channel.send(HostReport(host::Beat{}));
  }

  void tell_fetches(ControlChannel& channel) {
    for (RankFetches::State& state : fetches_.states()) {
      (void)channel.send(HostReport(host::RankState{state.child, false, std::move(state.description), true}));
    }
  }

  void lost(const std::string& why) {
    if (!refusal()) progress_("the head is lost: " + why);
    over_();
  }

  // ---- on the thread of the fetches

  // Whether the checkpoint at the head's path is complete, and not a part that a download has left.
  bool has_checkpoint(const ChildStart& start) const {
    const std::string& model = start.options.model;
    std::error_code error;
    if (!std::filesystem::exists(model + "/config.json", error)) return false;
    if (start.options.load_format == "dummy") return true;
    const auto opened = model::Checkpoint::open(model);
    if (opened) return true;
    progress_(
        fmt::format("rank {} gets its part of the checkpoint from the head: {}", start.rank, opened.error().message));
    return false;
  }

  // Or on the link's.
  void spawn(uint64_t child, ChildStart start) {
    progress_(fmt::format("rank {} of epoch {} is started", start.rank, start.epoch));
    const std::lock_guard lock(mutex_);
    const ProcessKeeper::ChildId kept = keeper_.spawn(std::move(start), 0);
    kept_[child] = kept;
    children_[kept] = child;
    const auto early = early_.extract(child);
    if (!early) return;
    for (const ChildOrder& order : early.mapped()) keeper_.tell(kept, order);
  }

  // Whether the rank is not started yet: it is told then.
  bool waits(const host::TellRank& order) {
    const std::lock_guard lock(mutex_);
    const auto early = early_.find(order.child);
    if (early == early_.end()) return false;
    const bool matters = !std::holds_alternative<control::Ping>(order.order);
    if (matters && early->second.size() < kMostEarlyOrders) early->second.push_back(order.order);
    return true;
  }

  void forget_early(uint64_t child) {
    const std::lock_guard lock(mutex_);
    early_.erase(child);
  }

  // ---- on the children's threads

  void said(ProcessKeeper::ChildId kept, ChildReport report) {
    if (const auto child = child_of(kept)) report_to_head(host::RankSaid{*child, std::move(report)});
  }

  void exited(ProcessKeeper::ChildId kept, std::string how, bool on_purpose, int signal) {
    const auto child = child_of(kept);
    {
      const std::lock_guard lock(mutex_);
      if (child) kept_.erase(*child);
      children_.erase(kept);
    }
    if (child) report_to_head(host::RankExited{*child, std::move(how), on_purpose, signal});
  }

  // Where the head's supervisor would hand over a descriptor, the rank gets a connection of its own.
  void connect(ProcessKeeper::ChildId kept, const ChildStart& start, Descriptor head_end) {
    const auto child = child_of(kept);
    auto connection = door_.open(host::ConnectRank{secret(), child.value_or(0), start.epoch, start.rank});
    if (!connection) {
      progress_(fmt::format("rank {}: {}", start.rank, connection.error().message));
      return keeper_.kill(kept);
    }
    relay_.add(*std::move(connection), std::move(head_end));
  }

  // A report that was lost, perhaps in part, cannot be repeated: the link ends, and with it the ranks.
  void report_to_head(const HostReport& report) {
    if (!link_.channel().send(report)) link_.end();
  }

  std::string secret() const {
    const std::lock_guard lock(mutex_);
    return secret_;
  }

  std::map<uint64_t, ProcessKeeper::ChildId> all_kept() const {
    const std::lock_guard lock(mutex_);
    return kept_;
  }

  std::optional<ProcessKeeper::ChildId> kept_of(uint64_t child) const {
    const std::lock_guard lock(mutex_);
    const auto it = kept_.find(child);
    return it == kept_.end() ? std::nullopt : std::optional(it->second);
  }

  std::optional<uint64_t> child_of(ProcessKeeper::ChildId kept) const {
    const std::lock_guard lock(mutex_);
    const auto it = children_.find(kept);
    return it == children_.end() ? std::nullopt : std::optional(it->second);
  }

  const Door& door_;
  comm::TlsRelay& relay_;
  const WorkerOptions& options_;
  const Progress progress_;
  const std::function<void()> over_;
  mutable std::mutex mutex_;  // guards what follows
  std::optional<std::string> refusal_ = "the head has not admitted this host: it says why";
  std::string secret_;                               // of the link
  std::map<uint64_t, ProcessKeeper::ChildId> kept_;  // by the head's number
  std::map<ProcessKeeper::ChildId, uint64_t> children_;
  std::map<uint64_t, std::vector<ChildOrder>> early_;  // of those that are not started yet; they are told then
  HostLink link_;
  ProcessKeeper keeper_;
  RankFetches fetches_;  // ends first
};

class HostSupervisor final : public Server {
 public:
  HostSupervisor(WorkerOptions options, Door door, std::unique_ptr<comm::TlsRelay> relay, host::Join join,
                 Descriptor stop_event, std::function<void(const std::string&)> progress, std::string program)
      : options_(std::move(options)),
        door_(std::move(door)),
        relay_(std::move(relay)),
        join_(std::move(join)),
        stop_event_(std::move(stop_event)),
        progress_(std::move(progress)),
        program_(std::move(program)),
        fetcher_(options_.download_dir, options_.download_space) {
    thread_ = std::thread([this] { run(); });
  }

  ~HostSupervisor() override {
    request_stop();
    thread_.join();
  }

  void request_stop() override {
    const uint64_t one = 1;
    if (write(stop_event_.get(), &one, sizeof(one)) < 0) return;  // full: it has been requested long since
  }

  int wait() override {
    stopped_.get_future().wait();
    return 0;
  }

 private:
  void run() {
    milliseconds pause = kFirstPause;
    std::optional<std::string> last_failure;
    do {
      const auto failure = lend();
      if (!failure) pause = kFirstPause;
      if (failure && failure != last_failure) progress_(*failure + "; it is tried again");
      last_failure = failure;
    } while (!stops_within(std::exchange(pause, std::min(2 * pause, kMostPause))));
    stopped_.set_value();
  }

  // Until the link is lost. Why it never came to be; nullopt: it did.
  std::optional<std::string> lend() {
    auto connection = door_.open(join_);
    if (!connection) return connection.error().message;
    auto ends = comm::TlsRelay::make_ends();
    if (!ends) return ends.error().message;
    Door door = door_;  // ranks connect to the link's numeric address: no look-up of a name can delay their end
    if (!connection->peer_address.empty()) door.dial.host = connection->peer_address;
    const comm::TlsRelay::Id relay = relay_->add(*std::move(connection), std::move(ends->first));
    Descriptor over(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    std::optional<std::string> refusal;
    {
      Lending lending(door, *relay_, std::move(ends->second), options_, program_, fetcher_, progress_, [&over] {
        const uint64_t one = 1;
        (void)!write(over.get(), &one, sizeof(one));
      });
      std::array<pollfd, 2> waits = {pollfd{over.get(), POLLIN, 0}, pollfd{stop_event_.get(), POLLIN, 0}};
      while (poll(waits.data(), waits.size(), -1) < 0 && errno == EINTR) {
      }
      refusal = lending.refusal();
    }
    relay_->cut(relay);
    return refusal;
  }

  bool stops_within(milliseconds pause) {
    pollfd state{stop_event_.get(), POLLIN, 0};
    const auto until = std::chrono::steady_clock::now() + pause;
    for (;;) {
      const auto left = std::chrono::ceil<milliseconds>(until - std::chrono::steady_clock::now()).count();
      const int found = poll(&state, 1, static_cast<int>(std::max<int64_t>(left, 0)));
      if (found >= 0 || errno != EINTR) return found > 0;
    }
  }

  const WorkerOptions options_;
  const Door door_;
  const std::unique_ptr<comm::TlsRelay> relay_;
  const host::Join join_;
  const Descriptor stop_event_;
  const std::function<void(const std::string&)> progress_;
  const std::string program_;
  CheckpointFetcher fetcher_;  // of the thread that lends
  std::promise<void> stopped_;
  std::thread thread_;
};

Result<std::string> make_instance() {
  std::array<unsigned char, 16> bytes{};
  if (RAND_bytes(bytes.data(), bytes.size()) != 1) return fail("there are no random numbers");
  std::string text;
  for (const unsigned char byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

}  // namespace

Result<std::unique_ptr<Server>> start_host_supervisor(const WorkerOptions& options,
                                                      std::function<void(const std::string&)> progress,
                                                      const std::string& program) {
  if (auto ok = raise_descriptor_limit(); !ok) return tl::unexpected(ok.error());
  Door door;
  auto context = comm::TlsContext::load(options.directory, comm::ClusterRole::worker);
  if (!context) return tl::unexpected(context.error());
  door.context = *std::move(context);
  auto token = comm::read_join_token(options.token_file.empty() ? options.directory + "/token" : options.token_file);
  if (!token) return tl::unexpected(token.error());
  door.dial.host = options.master_addr;
  door.dial.port = options.master_port;
  door.dial.token = *std::move(token);
  auto instance = make_instance();
  if (!instance) return tl::unexpected(instance.error());
  host::Join join{options.version, options.name, *std::move(instance), options.devices, options.spare, ""};
  if (!options.interface_name.empty()) {
    auto address = comm::address_of_interface(options.interface_name);
    if (!address) return tl::unexpected(address.error());
    join.address = *std::move(address);
  }
  auto relay = comm::TlsRelay::start();
  if (!relay) return tl::unexpected(relay.error());
  Descriptor stop_event(eventfd(0, EFD_CLOEXEC));
  if (!stop_event) return fail("no event descriptor: {}", std::strerror(errno));
  return std::make_unique<HostSupervisor>(options, std::move(door), *std::move(relay), std::move(join),
                                          std::move(stop_event), std::move(progress), program);
}

}  // namespace lorikeet::actors
