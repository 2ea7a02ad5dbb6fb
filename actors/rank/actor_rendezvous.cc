#include "actors/rank/actor_rendezvous.h"

#include <fmt/format.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "comm/collective/collective.h"

namespace lorikeet::actors {
namespace {

constexpr std::chrono::seconds kPutTimeout{10};

class ActorRendezvous final : public comm::Rendezvous {
 public:
  ActorRendezvous(caf::actor_system& system, RendezvousActor store) : system_(system), store_(std::move(store)) {}

  void set(const std::string& key, const std::vector<uint8_t>& value) override {
    caf::scoped_actor self{system_};
    bool taken = false;
    self->request(store_, kPutTimeout, StorePut{key, value})
        .receive([&](bool ok) { taken = ok; }, [&](caf::error& error) { lost(error, key); });
    if (!taken) throw comm::CollectiveError(comm::CollectiveFailure::peer_lost, "the rendezvous store is full");
  }

  std::vector<uint8_t> get(const std::string& key, std::chrono::milliseconds timeout) override {
    caf::scoped_actor self{system_};
    std::vector<uint8_t> value;
    self->request(store_, timeout, StoreGet{key})
        .receive([&](StoreValue& found) { value = std::move(found.value); },
                 [&](caf::error& error) { lost(error, key); });
    return value;
  }

 private:
  [[noreturn]] void lost(const caf::error& error, const std::string& key) {
    const bool late = error == caf::sec::request_timeout;
    throw comm::CollectiveError(
        late ? comm::CollectiveFailure::timeout : comm::CollectiveFailure::peer_lost,
        fmt::format("rendezvous key {}: {}", key, late ? "nobody set it in time" : system_.render(error)));
  }

  caf::actor_system& system_;
  RendezvousActor store_;
};

}  // namespace

std::unique_ptr<comm::Rendezvous> make_actor_rendezvous(caf::actor_system& system, RendezvousActor store) {
  return std::make_unique<ActorRendezvous>(system, std::move(store));
}

}  // namespace lorikeet::actors
