#include "comm/collective/gloo_connect.h"

#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "comm/collective/sigpipe_guard.h"

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

int error_of_bind(const addrinfo& address) {
  const int descriptor = socket(address.ai_family, address.ai_socktype, address.ai_protocol);
  if (descriptor < 0) return errno;
  const int error = bind(descriptor, address.ai_addr, address.ai_addrlen) == 0 ? 0 : errno;
  close(descriptor);
  return error;
}

// The numeric form of the first address of `host` that a socket can be bound to. Gloo's own look-up takes every error
// of getaddrinfo(3) but -1 for success and goes through a list that was never made, so that it must not see names.
Result<std::string> numeric_address(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found); error != 0) {
    return fail("{} has no address: {}", host, gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);
  int error = 0;
  for (const addrinfo* address = found; address; address = address->ai_next) {
    error = error_of_bind(*address);
    if (error != 0) continue;
    char text[NI_MAXHOST];
    if (const int failed =
            getnameinfo(address->ai_addr, address->ai_addrlen, text, sizeof(text), nullptr, 0, NI_NUMERICHOST);
        failed != 0) {
      return fail("{} has no numeric address: {}", host, gai_strerror(failed));
    }
    return text;
  }
  return fail("{} is no address of this host: {}", host, std::strerror(error));
}

}  // namespace

Result<std::unique_ptr<GlooMesh>> connect_gloo_mesh(Rendezvous& store, const GlooOptions& options) {
  const auto could_not_join = [&](const std::string& reason) {
    return fail("rank {} of {} could not join {}: {}", options.rank, options.size, options.prefix, reason);
  };
  const Result<std::string> address = numeric_address(options.interface_address);
  if (!address) return could_not_join(address.error().message);
  const SigpipeGuard guard;  // Gloo's own thread inherits it
  try {
    gloo::transport::tcp::attr attributes;
    attributes.hostname = *address;
    std::shared_ptr<gloo::transport::Device> device = gloo::transport::tcp::CreateDevice(attributes);
    auto context = std::make_shared<gloo::rendezvous::Context>(options.rank, options.size);
    context->setTimeout(options.connect_timeout);
    PrefixedStore prefixed(store, options.prefix, Clock::now() + options.connect_timeout);
    context->connectFullMesh(prefixed, device);
    return std::make_unique<GlooMesh>(std::move(context), options.operation_timeout);
  } catch (const std::exception& error) {
    return could_not_join(error.what());
  }
}

}  // namespace lorikeet::comm
