#include "actors/head/rendezvous_store.h"

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace lorikeet::actors {
namespace {

constexpr size_t kMaxKeys = 16 << 10;  // 64 ranks that each tell every other one an address need 4096
constexpr size_t kMaxValueBytes = 64 << 10;

struct Store {
  std::map<std::string, std::vector<uint8_t>> values;
  std::multimap<std::string, caf::typed_response_promise<StoreValue>> waiting;
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

}  // namespace lorikeet::actors
