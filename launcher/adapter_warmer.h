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
  // Starts with the first of `names` (not empty), on a thread of its own, which alone uses `client`. per_second: the most
  // loads a second, evenly spaced, fewer where they take longer, and at least one an hour. 0: each load starts when the one
  // before it is done.
  AdapterWarmer(std::unique_ptr<comm::ServerClient> client, std::vector<std::string> names, double per_second = 0);
  ~AdapterWarmer();
  AdapterWarmer(const AdapterWarmer&) = delete;
  AdapterWarmer& operator=(const AdapterWarmer&) = delete;

  // The least time from the start of one load to the next one's, for so many a second; 0: none.
  static std::chrono::nanoseconds period_of(double per_second);

  // Waits for the load that is under way. Errors: a load was refused or not answered in time; there was none after it.
  Result<void> stop();

 private:
  void run();
  Result<void> warm(const std::string& name);
  void wait_until(std::chrono::steady_clock::time_point due) const;

  const std::unique_ptr<comm::ServerClient> client_;
  const std::vector<std::string> names_;
  const std::chrono::nanoseconds period_;
  std::atomic<bool> stops_{false};  // after the one that is under way
  std::atomic<bool> gone_{false};   // the owner does not wait for the result
  Result<void> ended_;              // written by the thread; to be read after it has been joined
  std::thread thread_;
};

}  // namespace lorikeet::launcher
