// How much each tenant may ask for, over both doors together: requests in a minute, tokens in flight.
//
// Requests are a bucket that holds as many as a minute allows and fills evenly. Tokens in flight are those of prompts
// and of what may be generated, from a request's admission to its end.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "actors/wire/options.h"

namespace lorikeet::actors {

// Threads: one.
class TenantLimits {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  struct Refusal {
    std::string message;
    int32_t retry_after_s = 0;  // 0: it will never be granted
  };

  explicit TenantLimits(const std::vector<TenantOptions>& tenants);

  // Each: nullopt where it is fine. A tenant without limits has no entry.
  std::optional<Refusal> take_request(const std::string& tenant, TimePoint now);
  std::optional<Refusal> take_tokens(const std::string& tenant, int64_t tokens);

  void give_tokens(const std::string& tenant, int64_t tokens);  // what take_tokens took

 private:
  struct Tenant {
    int32_t requests_per_minute = 0;  // 0: no limit
    int64_t max_tokens = 0;           // 0: no limit
    double requests = 0;              // that may come now
    std::optional<TimePoint> filled;  // when `requests` was brought up to date
    int64_t tokens = 0;               // in flight
  };

  std::unordered_map<std::string, Tenant> tenants_;
};

}  // namespace lorikeet::actors
