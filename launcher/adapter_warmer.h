// Brings adapters into slots without requests for them, one after the other and again and again, while something else is
// measured.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "comm/client/server_client.h"
#include "kernels/base/error.h"

namespace lorikeet::launcher {

class AdapterWarmer {
 public:
  // Begins with the first of `names`, of which there are some; on a thread of its own, the only one that uses `client`.
  // per_second: so many at the most, evenly, and fewer where they take longer; less than one an hour is taken as one an
  // hour. 0: each as soon as the one before it is there.
  AdapterWarmer(std::unique_ptr<comm::ServerClient> client, std::vector<std::string> names, double per_second = 0);
  ~AdapterWarmer();
  AdapterWarmer(const AdapterWarmer&) = delete;
  AdapterWarmer& operator=(const AdapterWarmer&) = delete;

  // From one's begin to the next one's, at least, for so many a second; 0: none.
  static std::chrono::nanoseconds period_of(double per_second);

  // Waits for the one that is under way. Errors: one was refused, or not answered in time; it is the last.
  Result<void> stop();

 private:
  void run();
  Result<void> warm(const std::string& name);
  void wait_until(std::chrono::steady_clock::time_point due) const;

  const std::unique_ptr<comm::ServerClient> client_;
  const std::vector<std::string> names_;
  const std::chrono::nanoseconds period_;
  std::atomic<bool> stops_{false};  // after the one that is under way
  std::atomic<bool> gone_{false};   // nobody wants to know of it any more
  Result<void> ended_;              // the thread's until it has been joined
  std::thread thread_;
};

}  // namespace lorikeet::launcher
