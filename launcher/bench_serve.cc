// `lorikeet bench serve`: a server that runs already, seen from its clients' side.
#include <fmt/format.h>

#include <string>
#include <utility>

#include "launcher/bench_runs.h"
#include "launcher/load_client.h"
#include "launcher/status_query.h"

namespace lorikeet::launcher {
namespace {

constexpr double kMs = 1e3;
constexpr std::chrono::seconds kStatusPatience{10};
constexpr int kRoundTrips = 20;

}  // namespace

Result<void> bench_serve(const BenchFlags& flags, BenchReport& report) {
  auto client = connect(flags.zmq, comm::Encoding::cereal);
  if (!client) return tl::unexpected(client.error());
  std::vector<double> round_trips;
  std::string json;
  for (int i = 0; i < kRoundTrips; ++i) {
    auto answer = ask_status(**client, kStatusPatience);
    if (!answer) return fail("{}: {}", flags.zmq.address, answer.error().message);
    round_trips.push_back(answer->seconds);
    json = std::move(answer->json);
  }
  const auto status = read_status(json);
  if (!status) return fail("{}: {}", flags.zmq.address, status.error().message);
  const int32_t vocab_size = status->vocab_size;
  if (vocab_size < 1) return fail("{}: the server does not say how large its vocabulary is", flags.zmq.address);

  auto requests = random_requests(static_cast<size_t>(flags.num_prompts), flags.input_len, flags.output_len, vocab_size,
                                  flags.seed);
  for (size_t i = 0; i < requests.size() && !flags.adapters.empty(); ++i) {
    const std::string& adapter = flags.adapters[i % flags.adapters.size()];
    if (adapter != "-") requests[i].adapter = adapter;
  }
  LoadOptions options;
  options.request_rate = flags.request_rate;
  options.max_concurrency = static_cast<size_t>(flags.max_concurrency);
  options.seed = flags.seed;
  // A server that is gone is told as server_lost.
  const auto load = run_load(**client, std::move(requests), options, [] { return false; });
  if (!load) return tl::unexpected(load.error());

  std::vector<double> first_token, per_token, whole;
  double failed = 0;
  for (const RequestTimes& times : load->requests) {
    if (!times.error.empty()) {
      ++failed;
      continue;
    }
    whole.push_back(times.done - times.sent);
    if (times.tokens > 0) first_token.push_back(times.first_token - times.sent);
    if (times.tokens > 1) per_token.push_back(times.seconds_per_token());
  }
  report.describe("zmq", flags.zmq.address);
  report.describe("model", status->model);
  report.describe("num_prompts", flags.num_prompts);
  report.describe("request_rate", flags.request_rate);
  report.describe("max_concurrency", flags.max_concurrency);
  report.describe("input_len", flags.input_len);
  report.describe("output_len", flags.output_len);
  const double round_trip = percentile(round_trips, 0.5) * kMs;
  report.add({"requests that failed", failed, "", 0, false,
              load->first_error() != nullptr ? *load->first_error() : std::string()});
  report.add({"whole run", load->seconds, "s", 0, false, ""});
  report.add({"requests", static_cast<double>(whole.size()) / load->seconds, "/s", flags.request_rate, true,
              flags.request_rate > 0 ? "the rate at which they were sent" : ""});
  report.add({"output tokens", static_cast<double>(load->tokens()) / load->seconds, "tokens/s", 0, true, ""});
  report.add({"prompt tokens", static_cast<double>(load->prompt_tokens()) / load->seconds, "tokens/s", 0, true, ""});
  const auto times = [&](const std::string& name, const std::vector<double>& values, double floor,
                         const std::string& against) {
    for (const double p : {0.5, 0.9, 0.99}) {
      report.add({fmt::format("{}, p{:.0f}", name, 100 * p), percentile(values, p) * kMs, "ms", floor, false, against});
    }
  };
  times("first token", first_token, round_trip, "a status query's round trip");
  times("time per output token", per_token, 0, "");
  times("whole answer", whole, 0, "");
  return {};
}

}  // namespace lorikeet::launcher
