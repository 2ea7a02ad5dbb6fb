// Sends a set of requests to a server and notes when each of their tokens came.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "comm/client/client_messages.h"
#include "comm/client/zmq_client.h"
#include "kernels/base/error.h"

namespace lorikeet::launcher {

struct LoadOptions {
  double request_rate = 0;     // requests a second, at random distances (launcher/load_plan.h); 0: as soon as allowed
  double burstiness = 1;       // of the distances
  size_t max_concurrency = 0;  // requests that are with the server at once; 0: any number
  uint64_t seed = 0;           // of the distances
  std::vector<double> send_times;  // when each may be sent at the earliest, in seconds; empty: by the rate
  std::function<void(size_t ended, int64_t tokens)> on_progress;  // requests and tokens so far, whenever some have come
};

// Seconds since the load began.
struct RequestTimes {
  double sent = 0;
  double first_token = 0;  // 0: there was none
  double last_token = 0;
  double done = 0;
  int32_t prompt_tokens = 0, tokens = 0;
  std::vector<float> gaps;  // seconds between pieces of the answer, after the first
  std::string error;        // not empty: the request failed

  double seconds_per_token() const {  // of the tokens after the first; 0 where there is none
    return tokens > 1 ? (last_token - first_token) / (tokens - 1) : 0;
  }
};

struct Load {
  std::vector<RequestTimes> requests;  // in the order given
  double seconds = 0;                  // until the last answer

  int64_t prompt_tokens() const;
  int64_t tokens() const;
  const std::string* first_error() const;  // null: no request failed
};

// The requests' ids are set here. Fails when the server is lost, or when nothing comes for a while and `give_up` says
// that nothing will.
Result<Load> run_load(comm::ServerClient& client, std::vector<comm::GenerateRequest> requests,
                      const LoadOptions& options, const std::function<bool()>& give_up);

// Greedy requests of random prompts that generate exactly `output_len` tokens; ids of the vocabulary's first
// `vocab_size`. No two share a prefix to speak of.
std::vector<comm::GenerateRequest> random_requests(size_t count, int32_t input_len, int32_t output_len,
                                                   int32_t vocab_size, uint64_t seed);

// The value below which a share `p` of `values` lies (nearest rank); 0 of none.
double percentile(std::vector<double> values, double p);

}  // namespace lorikeet::launcher
