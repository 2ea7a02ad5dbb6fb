// The body of /metrics: a snapshot of the server and what was counted of requests, in Prometheus' text format.
#pragma once

#include <prometheus/metric_family.h>

#include <cstdint>
#include <string>
#include <vector>

#include "actors/wire/server_status.h"

namespace lorikeet::actors {

// The snapshot comes under vLLM's names (requests running and waiting, KV cache, prefix cache, adapters), and under ours
// for each rank and adapter. `counted`: RequestMetrics::collect(). now: seconds since 1970.
std::string metrics_text(const ServerStatus& status, std::vector<prometheus::MetricFamily> counted, int32_t max_loras,
                         int32_t block_size, int64_t now);

inline constexpr const char* kMetricsContentType = "text/plain; version=0.0.4; charset=utf-8";

}  // namespace lorikeet::actors
