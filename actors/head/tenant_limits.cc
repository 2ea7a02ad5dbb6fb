#include "actors/head/tenant_limits.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace lorikeet::actors {
namespace {

constexpr double kMinute = 60;
constexpr int32_t kBusySeconds = 1;  // when a request ends and frees its tokens is not known

}  // namespace

TenantLimits::TenantLimits(const std::vector<TenantOptions>& tenants) {
  for (const TenantOptions& tenant : tenants) {
    Tenant& known = tenants_[tenant.name];
    known.requests_per_minute = tenant.requests_per_minute;
    known.max_tokens = tenant.tokens_in_flight;
    known.requests = tenant.requests_per_minute;
  }
}

std::optional<TenantLimits::Refusal> TenantLimits::take_request(const std::string& name, TimePoint now) {
  const auto found = tenants_.find(name);
  if (found == tenants_.end() || found->second.requests_per_minute <= 0) return std::nullopt;
  Tenant& tenant = found->second;
  const double most = tenant.requests_per_minute;
  if (tenant.filled) {
    const double passed = std::chrono::duration<double>(now - *tenant.filled).count();
    tenant.requests = std::min(most, tenant.requests + passed * most / kMinute);
  }
  tenant.filled = now;
  if (tenant.requests >= 1) {
    tenant.requests -= 1;
    return std::nullopt;
  }
  const double wait = (1 - tenant.requests) * kMinute / most;
  return Refusal{fmt::format("tenant {} has sent its {} requests of a minute", name, tenant.requests_per_minute),
                 std::max(1, static_cast<int32_t>(std::ceil(wait)))};
}

std::optional<TenantLimits::Refusal> TenantLimits::take_tokens(const std::string& name, int64_t tokens) {
  const auto found = tenants_.find(name);
  if (found == tenants_.end() || found->second.max_tokens <= 0) return std::nullopt;
  Tenant& tenant = found->second;
  if (tokens > tenant.max_tokens) {
    return Refusal{fmt::format("prompt and max_tokens are {} tokens, tenant {} may have {} in flight; give a smaller "
                               "max_tokens",
                               tokens, name, tenant.max_tokens),
                   0};
  }
  if (tenant.tokens + tokens > tenant.max_tokens) {
    return Refusal{fmt::format("tenant {} has {} tokens in flight, {} more are above its {}", name, tenant.tokens,
                               tokens, tenant.max_tokens),
                   kBusySeconds};
  }
  tenant.tokens += tokens;
  return std::nullopt;
}

void TenantLimits::give_tokens(const std::string& name, int64_t tokens) {
  const auto found = tenants_.find(name);
  if (found != tenants_.end() && found->second.max_tokens > 0) found->second.tokens -= tokens;
}

}  // namespace lorikeet::actors
