// The figures of a load, as they are usually reported.
//
//   TTFT  time to the first token           TPOT  time per output token after the first, of a request
//   ITL   between two pieces of an answer   E2E   from sending a request to its end
#pragma once

#include <map>
#include <string>
#include <vector>

#include "kernels/base/error.h"
#include "launcher/load_client.h"

namespace lorikeet::launcher {

struct Spread {  // seconds
  double mean = 0, p50 = 0, p90 = 0, p99 = 0;
};
Spread spread_of(std::vector<double> values);

// Limits that a good request keeps, in seconds; 0: none.
struct GoodputLimits {
  double ttft = 0, tpot = 0, e2e = 0;
  bool any() const { return ttft > 0 || tpot > 0 || e2e > 0; }
};

// Of --goodput: "ttft:500", "tpot:50", "e2el:10000", in milliseconds, as vLLM's benchmark has them.
Result<GoodputLimits> parse_goodput(const std::vector<std::string>& texts);

struct LoadFigures {
  size_t requests = 0, failed = 0, good = 0;  // good: ended well within the limits
  int64_t tokens = 0;                         // generated
  Spread ttft, tpot, itl, e2e;                // of requests that ended well
};

// Seconds between pieces of the answers, only while all requests generate: after every request has its first token and
// before the first request is done.
std::vector<double> steady_gaps(const Load& load);

// Of all requests.
LoadFigures figures_of(const Load& load, const GoodputLimits& limits);

// The same for each label, of which every request of the load has one.
std::map<std::string, LoadFigures> figures_by_label(const Load& load, const std::vector<std::string>& labels,
                                                    const GoodputLimits& limits);

}  // namespace lorikeet::launcher
