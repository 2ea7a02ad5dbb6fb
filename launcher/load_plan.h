// What a load generator sends, to whom, and when.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "comm/client/client_messages.h"
#include "kernels/base/error.h"

namespace lorikeet::launcher {

// The order in which requests ask for adapters.
enum class AdapterMix {
  round_robin,  // in turn
  uniform,      // each as likely as any other
  zipf,         // the i-th with a probability that is proportional to 1 / i^exponent
};

// "round-robin", "uniform", "zipf".
Result<AdapterMix> parse_adapter_mix(const std::string& text);

// An adapter for each request. comm::kBaseModel ("-") is the base model.
std::vector<std::string> draw_adapters(size_t requests, const std::vector<std::string>& adapters, AdapterMix mix,
                                       double zipf_exponent, uint64_t seed);

// When each of `requests` may be sent at the earliest, in seconds from the begin, ascending. request_rate: a second; 0:
// all at once. burstiness: the shape of the gamma distribution of the distances: 1 is a Poisson process, less is burstier,
// more is steadier.
std::vector<double> send_times(size_t requests, double request_rate, double burstiness, uint64_t seed);

// Of --request-rate: a number above 0; "inf" and 0 are 0, without a limit.
Result<double> parse_rate(const std::string& text);

// One request of a recorded trace.
struct TraceEntry {
  double seconds = 0;  // from the trace's begin
  int32_t input_len = 0, output_len = 0;
  std::string adapter;  // empty: the trace says none
};

// A file of lines {"timestamp": milliseconds, "input_length": N, "output_length": N, "adapter": NAME}, as public traces
// of model servers are written; other keys are passed over. At most `most` of them. Errors name file and line.
Result<std::vector<TraceEntry>> read_trace(const std::string& path, size_t most);

}  // namespace lorikeet::launcher
