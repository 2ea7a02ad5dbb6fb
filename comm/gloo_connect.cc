#include "comm/gloo_connect.h"

#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "comm/sigpipe_guard.h"

namespace lorikeet::comm {
namespace {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

// Gloo's view of the rendezvous, with one deadline over all its waits.
class PrefixedStore final : public gloo::rendezvous::Store {
 public:
  PrefixedStore(Rendezvous& store, std::string prefix, Clock::time_point deadline)
      : store_(store), prefix_(std::move(prefix)), deadline_(deadline) {}

  void set(const std::string& key, const std::vector<char>& value) override {
    store_.set(prefix_ + "/" + key, {value.begin(), value.end()});
  }

  std::vector<char> get(const std::string& key) override {
    const auto left = std::chrono::ceil<Milliseconds>(deadline_ - Clock::now());
    const std::vector<uint8_t> value = store_.get(prefix_ + "/" + key, std::max(left, Milliseconds(0)));
    return {value.begin(), value.end()};
  }

  void wait(const std::vector<std::string>& keys) override {
    for (const std::string& key : keys) get(key);
  }

  void wait(const std::vector<std::string>& keys, const Milliseconds&) override { wait(keys); }

 private:
  Rendezvous& store_;
  const std::string prefix_;
  const Clock::time_point deadline_;
};

}  // namespace

Result<std::unique_ptr<GlooMesh>> connect_gloo_mesh(Rendezvous& store, const GlooOptions& options) {
  const SigpipeGuard guard;  // Gloo's own thread inherits it
  try {
    gloo::transport::tcp::attr attributes;
    attributes.hostname = options.interface_address;
    std::shared_ptr<gloo::transport::Device> device = gloo::transport::tcp::CreateDevice(attributes);
    auto context = std::make_shared<gloo::rendezvous::Context>(options.rank, options.size);
    context->setTimeout(options.connect_timeout);
    PrefixedStore prefixed(store, options.prefix, Clock::now() + options.connect_timeout);
    context->connectFullMesh(prefixed, device);
    return std::make_unique<GlooMesh>(std::move(context), options.operation_timeout);
  } catch (const std::exception& error) {
    return fail("rank {} of {} could not join {}: {}", options.rank, options.size, options.prefix, error.what());
  }
}

}  // namespace lorikeet::comm
