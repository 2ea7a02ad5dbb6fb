#include "actors/supervisor/supervisor.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <map>
#include <optional>
#include <utility>
#include <variant>

namespace lorikeet::actors {
namespace {

using ChildId = Processes::ChildId;

constexpr int kMaxFailures = 3;  // epochs in a row that never came to serve
constexpr std::chrono::seconds kStopPatience{5};

// Signals that a process brings upon itself. Whoever wants it to end sends others.
bool is_fault(int signal) {
  constexpr std::array kFaults = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSYS, SIGTRAP};
  return std::find(kFaults.begin(), kFaults.end(), signal) != kFaults.end();
}

class Supervisor {
 public:
  Supervisor(SupervisorActor::pointer self, SupervisorSetup setup) : self_(self), setup_(std::move(setup)) {
    start_head();
  }

  // ---- starting, loading, serving

  void said(ChildSaid& said) {
    const auto it = children_.find(said.child);
    if (it == children_.end()) return;
    if (std::holds_alternative<control::AwaitsRanks>(said.report) && it->second.rank < 0) head_ = said.child;
    std::visit([&](auto& report) { take(it->second, report); }, said.report);
  }

  void exited(const ChildExited& exited) {
    const auto found = children_.extract(exited.child);
    if (found.empty()) return;
    const Child& child = found.mapped();
    const bool is_head = child.rank < 0;
    if (is_head) head_ = 0;
    if (stopping_) return is_head ? kill_all() : stop_if_alone();
    if (is_head) return lose_head(child.last_words.empty() ? "the head " + exited.how : child.last_words);
    if (child.epoch == epoch_) {
      if (!child.last_words.empty()) {
        lose_group(child.last_words, Evidence::words, child.failed_by_itself);
      } else if (!exited.on_purpose) {
        lose_group(fmt::format("rank {} {}", child.rank, exited.how), Evidence::death, is_fault(exited.signal));
      }
    }
    restart_if_clear();
    start_ranks_if_clear();
  }

  // ---- stopping

  // Asked for a second time, it does not wait for anybody.
  void stop() { stopping_ ? kill_all() : stop_with(0); }

  void tick() { kill_all(); }  // the head has had its time

 private:
  // Of the cause of a loss, weakest first: what the head reports of a rank, what a rank says of itself (perhaps only
  // that a peer is gone), the kernel's word on a process that we did not kill.
  enum class Evidence { reported, words, death };

  struct Child {
    int32_t rank = -1;  // -1: the head
    uint64_t epoch = 0;
    std::string last_words;
    bool failed_by_itself = false;
  };

  void start_head() { start(-1); }

  void start(int32_t rank) {
    ChildStart start{setup_.options, epoch_, rank, 0};
    // Clients find a new head where the old one was.
    if (!address_.empty()) start.options.zmq_address = address_;
    if (http_port_ > 0) start.options.http.port = http_port_;
    children_[setup_.processes->spawn(std::move(start), rank < 0 ? 0 : head_)] = Child{rank, epoch_, ""};
  }

  bool has_ranks() const {
    return std::any_of(children_.begin(), children_.end(), [](const auto& child) { return child.second.rank >= 0; });
  }

  // Ranks share devices with their predecessors, so those must be dead first.
  void start_ranks_if_clear() {
    if (stopping_ || loss_ || has_ranks() || head_ == 0) return;
    for (int32_t rank = 0; rank < setup_.options.tensor_parallel_size; ++rank) start(rank);
  }

  void take(Child&, const control::AwaitsRanks&) { start_ranks_if_clear(); }

  void take(Child& child, const control::Progress& progress) {
    if (child.epoch == epoch_) setup_.progress(progress.line);
  }

  void take(Child& child, const control::Loading& loading) {
    if (child.epoch == epoch_ && child.rank >= 0) setup_.loading(child.rank, loading.done, loading.total);
  }

  void take(Child& child, control::Failed& failed) {
    child.last_words = std::move(failed.why);
    child.failed_by_itself = failed.by_itself;
  }

  void take(Child&, const control::Ready& ready) {
    if (ready.epoch != epoch_ || stopping_) return;
    failures_ = 0;
    http_port_ = ready.http_port;
    const bool first = std::exchange(address_, ready.address).empty();
    if (first) {
      setup_.ready(ready);
    } else {
      setup_.progress(fmt::format("serving again (epoch {})", epoch_));
    }
  }

  void take(Child&, const control::GroupLost& lost) {
    if (lost.epoch == epoch_) lose_group(lost.why, Evidence::reported, lost.by_rank);
  }

  // ---- restarting

  // by_rank: it failed by itself. What its peers miss of a rank that somebody has stopped is nobody's fault.
  void lose_group(const std::string& why, Evidence evidence, bool by_rank) {
    if (!loss_) {
      loss_ = Loss{why, evidence, by_rank, name_stopped_ranks()};
      kill_ranks();
    } else if (evidence > loss_->evidence) {
      loss_->by_rank = evidence == Evidence::death ? by_rank : by_rank || loss_->by_rank;
      loss_->why = why;
      loss_->evidence = evidence;
    }
    restart_if_clear();
  }

  bool name_stopped_ranks() {
    bool found = false;
    for (const auto& [id, child] : children_) {
      if (child.rank < 0 || !setup_.processes->is_stopped(id)) continue;
      setup_.progress(fmt::format("rank {} has been stopped by somebody", child.rank));
      found = true;
    }
    return found;
  }

  void restart_if_clear() {
    if (stopping_ || !loss_ || has_ranks()) return;
    const Loss loss = *std::exchange(loss_, std::nullopt);
    if (!next_epoch(loss.why)) return;
    for (const auto& [id, child] : children_) {
      if (child.rank < 0)
        setup_.processes->tell(id, control::NewEpoch{epoch_, loss.why, loss.by_rank && !loss.was_stopped});
    }
    start_ranks_if_clear();
  }

  void lose_head(const std::string& why) {
    loss_.reset();
    if (!next_epoch(why)) return;
    kill_ranks();
    start_head();
  }

  bool next_epoch(const std::string& why) {
    setup_.progress(why);
    if (stopping_) return false;
    if (address_.empty() || ++failures_ > kMaxFailures) {
      stop_with(1);
      return false;
    }
    ++epoch_;
    return true;
  }

  void kill_ranks() {
    for (const auto& [id, child] : children_) {
      if (child.rank >= 0) setup_.processes->kill(id);
    }
  }

  // ---- stopping

  void stop_with(int status) {
    if (stopping_) return;
    stopping_ = true;
    status_ = status;
    bool has_head = false;
    for (const auto& [id, child] : children_) {
      if (child.rank >= 0) continue;
      has_head = true;
      setup_.processes->tell(id, control::Stop{});
    }
    if (!has_head) return kill_all();
    const std::chrono::milliseconds drain(setup_.options.drain_timeout_ms);
    self_->delayed_send(caf::actor_cast<SupervisorActor>(self_), drain + kStopPatience, Tick{});
  }

  void kill_all() {
    for (const auto& [id, child] : children_) setup_.processes->kill(id);
    stop_if_alone();
  }

  void stop_if_alone() {
    if (!children_.empty() || std::exchange(stopped_, true)) return;
    setup_.stopped(status_);
  }

  struct Loss {  // of the present group, until its ranks are dead
    std::string why;
    Evidence evidence = Evidence::reported;
    bool by_rank = false;
    bool was_stopped = false;  // a rank, by somebody
  };

  SupervisorActor::pointer self_;
  SupervisorSetup setup_;
  std::optional<Loss> loss_;
  std::map<ChildId, Child> children_;
  uint64_t epoch_ = 1;
  ChildId head_ = 0;       // 0: no head awaits ranks
  std::string address_;    // of the clients' socket; empty: has never served
  int32_t http_port_ = 0;  // of the head's HTTP door; 0: it has none
  int failures_ = 0;
  bool stopping_ = false, stopped_ = false;
  int status_ = 0;
};

}  // namespace

SupervisorActor::behavior_type supervisor(SupervisorActor::pointer self, SupervisorSetup setup) {
  auto state = std::make_shared<Supervisor>(self, std::move(setup));
  return {[state](ChildSaid& said) { state->said(said); },
          [state](const ChildExited& exited) { state->exited(exited); }, [state](StopServer) { state->stop(); },
          [state](Tick) { state->tick(); }};
}

}  // namespace lorikeet::actors
