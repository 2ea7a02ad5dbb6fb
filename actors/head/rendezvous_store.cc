#include "actors/head/rendezvous_store.h"

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "actors/wire/limits.h"

namespace lorikeet::actors {
namespace {

struct Store {
  std::map<std::string, std::vector<uint8_t>> values;
  size_t bytes = 0;  // of the values
  std::multimap<std::string, caf::typed_response_promise<StoreValue>> waiting;

  bool put(const std::string& key, std::vector<uint8_t> value) {
    const auto it = values.find(key);
    const size_t before = it == values.end() ? 0 : it->second.size();
    if (key.size() > kMaxRendezvousKeyBytes || value.size() > kMaxRendezvousValueBytes ||
        (it == values.end() && values.size() >= kMaxRendezvousKeys) ||
        bytes - before + value.size() > kMaxRendezvousBytes) {
      return false;
    }
    bytes = bytes - before + value.size();
    values[key] = std::move(value);
    return true;
  }

  // CAF forgets promises of an actor that ends: who waits for them would wait until its own time is over.
  void end() {
    for (auto& [key, promise] : waiting) promise.deliver(caf::make_error(caf::sec::request_receiver_down));
    waiting.clear();
  }
};

}  // namespace

RendezvousActor::behavior_type rendezvous_store(RendezvousActor::pointer self) {
  auto store = std::make_shared<Store>();
  self->set_exit_handler([self, store](const caf::exit_msg& exit) {
    store->end();
    self->quit(exit.reason);
  });
  return {[store](StorePut& put) -> bool {
            if (!store->put(put.key, put.value)) return false;
            const auto [begin, end] = store->waiting.equal_range(put.key);
            for (auto it = begin; it != end; ++it) it->second.deliver(StoreValue{put.value});
            store->waiting.erase(begin, end);
            return true;
          },
          [self, store](const StoreGet& get) -> caf::result<StoreValue> {
            const auto it = store->values.find(get.key);
            if (it != store->values.end()) return StoreValue{it->second};
            auto promise = self->make_response_promise<StoreValue>();
            if (get.key.size() > kMaxRendezvousKeyBytes || store->waiting.size() >= kMaxRendezvousKeys)
              return caf::make_error(caf::sec::invalid_argument);
            store->waiting.emplace(get.key, promise);
            return promise;
          }};
}

}  // namespace lorikeet::actors
