#include "actors/wire/rendezvous_store.h"

#include <fmt/format.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "comm/collective/collective.h"

namespace lorikeet::actors {
namespace {

constexpr size_t kMaxKeys = 16 << 10;  // 64 ranks that each tell every other one an address need 4096
constexpr size_t kMaxValueBytes = 64 << 10;
constexpr std::chrono::seconds kPutTimeout{10};

struct Store {
  std::map<std::string, std::vector<uint8_t>> values;
  std::multimap<std::string, caf::typed_response_promise<StoreValue>> waiting;
};

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

RendezvousActor::behavior_type rendezvous_store(RendezvousActor::pointer self) {
  auto store = std::make_shared<Store>();
  return {[store](StorePut& put) -> bool {
            if (put.value.size() > kMaxValueBytes || store->values.size() >= kMaxKeys) return false;
            const auto [begin, end] = store->waiting.equal_range(put.key);
            for (auto it = begin; it != end; ++it) it->second.deliver(StoreValue{put.value});
            store->waiting.erase(begin, end);
            store->values[put.key] = std::move(put.value);
            return true;
          },
          [self, store](const StoreGet& get) -> caf::result<StoreValue> {
            const auto it = store->values.find(get.key);
            if (it != store->values.end()) return StoreValue{it->second};
            auto promise = self->make_response_promise<StoreValue>();
            if (store->waiting.size() >= kMaxKeys) return caf::make_error(caf::sec::invalid_argument);
            store->waiting.emplace(get.key, promise);
            return promise;
          }};
}

std::unique_ptr<comm::Rendezvous> make_actor_rendezvous(caf::actor_system& system, RendezvousActor store) {
  return std::make_unique<ActorRendezvous>(system, std::move(store));
}

}  // namespace lorikeet::actors
