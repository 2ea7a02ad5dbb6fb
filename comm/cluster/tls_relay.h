// Turns TLS connections into plain sockets: CAF and the control channel use one end of a socket pair, and this carries the
// bytes between the other end and the network.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "comm/cluster/tls.h"
#include "kernels/base/descriptor.h"
#include "kernels/base/error.h"

namespace lorikeet::comm {

// One thread for all connections of a process. Each has two buffers of kRelayBytes; a side that does not read holds up the
// side that writes, as with one socket. When a side ends, what it has sent is still delivered, for at most a second; then
// both are closed.
// Threads: any.
class TlsRelay {
 public:
  using Id = uint64_t;  // never reused
  static constexpr size_t kRelayBytes = 64 << 10;

  static Result<std::unique_ptr<TlsRelay>> start();
  ~TlsRelay();  // closes all

  Id add(TlsConnection connection, Descriptor plain);
  void cut(Id id);  // closes both sides at once; one that is gone is fine

  // The plain end for add(), and the one that it is connected with.
  static Result<std::pair<Descriptor, Descriptor>> make_ends();

 private:
  struct Link;
  explicit TlsRelay(Descriptor wake);
  void run();
  void wake() const;

  Descriptor wake_;
  std::mutex mutex_;  // guards what follows
  Id last_id_ = 0;
  bool stopping_ = false;
  std::vector<std::unique_ptr<Link>> fresh_;
  std::unordered_set<Id> cut_;
  std::thread thread_;
};

}  // namespace lorikeet::comm
