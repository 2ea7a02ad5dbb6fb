// The head's port for other hosts. A connection must, within AdmissionLimits, show a worker's certificate of the cluster and
// then send the join token and its first words; any other is cut without an answer.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "comm/cluster/limits.h"
#include "comm/cluster/tls.h"
#include "kernels/base/descriptor.h"
#include "kernels/base/error.h"

namespace lorikeet::comm {

// Many handshakes at once on one thread of its own.
class TlsListener {
 public:
  // Called on the listener's thread, which they must not hold up.
  struct Callbacks {
    // words: what the worker has sent beside the token; later bytes are the new owner's to read.
    std::function<void(TlsConnection, std::vector<uint8_t> words)> admitted;
    // Tells people of connections that were refused: one sentence per kRefusalPause at most.
    std::function<void(const std::string&)> refused;
  };
  static constexpr std::chrono::seconds kRefusalPause{10};

  // Listens on `host` (a name or an address; empty: on all) from now on. port 0: one is picked. Errors name the address.
  static Result<std::unique_ptr<TlsListener>> open(const std::string& host, uint16_t port,
                                                   std::shared_ptr<const TlsContext> context, std::string token,
                                                   AdmissionLimits limits = {});
  ~TlsListener();

  uint16_t port() const { return port_; }
  void start(Callbacks callbacks);  // once

 private:
  using Clock = std::chrono::steady_clock;
  struct Unfinished {
    TlsConnection connection;
    std::string source;
    Clock::time_point deadline;
    bool shaken = false;         // hands
    short waits_for = 0;         // events of poll(2)
    std::vector<uint8_t> frame;  // of the first words, as far as they have come
    size_t wanted = 0;           // bytes of it
  };
  using Place = std::list<Unfinished>::iterator;
  enum class Outcome { waits, admitted, refused };

  TlsListener(std::shared_ptr<const TlsContext> context, std::string token, AdmissionLimits limits);
  void run();
  bool accept_one();
  void make_room(const std::string& source);
  Outcome get_on(Unfinished& connection, std::string& why);
  Outcome read_words(Unfinished& connection, std::string& why);
  void remove(Place place);
  void refuse(const std::string& address, const std::string& why);

  const std::shared_ptr<const TlsContext> context_;
  const std::string token_;
  const AdmissionLimits limits_;
  Callbacks callbacks_;
  Descriptor socket_, stop_event_;
  uint16_t port_ = 0;
  std::list<Unfinished> unfinished_;  // oldest first, so that deadlines are in order
  std::map<std::string, std::list<Place>> of_source_;
  Clock::time_point next_refusal_{}, accept_again_{};
  size_t refused_ = 0;  // since the last sentence
  std::thread thread_;
};

}  // namespace lorikeet::comm
