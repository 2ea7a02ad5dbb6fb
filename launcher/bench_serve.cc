// `lorikeet bench serve`: a server that runs already, seen from its clients' side.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "comm/client/adapter_request.h"
#include "launcher/bench_runs.h"
#include "launcher/load_client.h"
#include "launcher/load_figures.h"
#include "launcher/load_plan.h"
#include "launcher/progress_line.h"
#include "launcher/server_connection.h"
#include "launcher/status_query.h"
#include "launcher/svg_plot.h"
#include "launcher/units.h"

namespace lorikeet::launcher {
namespace {

constexpr std::chrono::seconds kStatusPatience{10};
constexpr int kRoundTrips = 20;
constexpr int32_t kVocabOverHttp = 500;  // ids that every tokenizer has: the API does not say how many there are
constexpr size_t kAdaptersInDetail = 8;

// A server and what is known of it.
struct Server {
  std::unique_ptr<comm::ServerClient> client;
  std::string where, model;
  int32_t vocab_size = 0;
  double round_trip = 0;  // seconds; 0: not measured
};

Result<Server> connect_over_zmq(const ZmqFlags& flags) {
  const std::string& zmq = flags.address;
  auto client = connect_to_server(flags);
  if (!client) return tl::unexpected(client.error());
  std::vector<double> round_trips;
  std::string json;
  for (int i = 0; i < kRoundTrips; ++i) {
    auto answer = ask_status(**client, kStatusPatience);
    if (!answer) return fail("{}: {}", zmq, answer.error().message);
    round_trips.push_back(answer->seconds);
    json = std::move(answer->json);
  }
  const auto status = read_status(json);
  if (!status) return fail("{}: {}", zmq, status.error().message);
  Server server{*std::move(client), zmq, status->model, status->vocab_size, percentile(round_trips, 0.5)};
  if (server.vocab_size < 1) return fail("{}: the server does not say how large its vocabulary is", zmq);
  return server;
}

Result<Server> connect_to_url(const ServeLoadFlags& flags) {
  auto client = connect_over_http(flags.http, flags.zmq.api_key, flags.model);
  if (!client) return tl::unexpected(client.error());
  const std::string model = (*client)->base_model();
  return Server{*std::move(client), flags.http.url, model, kVocabOverHttp, 0};
}

// What one run sends.
struct Planned {
  std::vector<comm::GenerateRequest> requests;
  std::vector<std::string> adapters;  // of each
  std::vector<double> times;          // none: by the rate
  int64_t tokens = 0;                 // that they will generate
};

Result<Planned> plan_requests(const BenchFlags& flags, int32_t vocab_size) {
  const ServeLoadFlags& serve = flags.serve;
  Planned planned;
  const auto count = static_cast<size_t>(flags.num_prompts);
  if (serve.trace.empty()) {
    planned.requests = random_requests(count, flags.input_len, flags.output_len, vocab_size, serve.seed);
  } else {
    const auto trace = read_trace(serve.trace, count);
    if (!trace) return tl::unexpected(trace.error());
    for (const TraceEntry& entry : *trace) {
      const uint64_t seed = serve.seed + planned.requests.size();
      planned.requests.push_back(random_requests(1, entry.input_len, entry.output_len, vocab_size, seed).front());
      planned.times.push_back(entry.seconds / serve.trace_speed);
      planned.adapters.push_back(entry.adapter);
    }
  }
  const auto mix = parse_adapter_mix(serve.adapter_mix);
  if (!mix) return tl::unexpected(mix.error());
  const auto drawn = draw_adapters(planned.requests.size(), serve.adapters, *mix, serve.zipf_exponent, serve.seed);
  planned.adapters.resize(planned.requests.size());
  for (size_t i = 0; i < planned.requests.size(); ++i) {
    if (planned.adapters[i].empty()) planned.adapters[i] = drawn[i];
    if (planned.adapters[i] != comm::kBaseModel) planned.requests[i].adapter = planned.adapters[i];
    planned.tokens += *planned.requests[i].max_tokens;
  }
  return planned;
}

// The figures of one run; `prefix` names it where there are several.
void add_figures(BenchReport& report, const std::string& prefix, const Load& load, const LoadFigures& figures,
                 double rate, double round_trip, const GoodputLimits& limits) {
  const double seconds = load.seconds;
  const auto ended = static_cast<double>(figures.requests - figures.failed);
  report.add({prefix + "requests that failed", static_cast<double>(figures.failed), "", 0, false,
              load.first_error() != nullptr ? *load.first_error() : std::string()});
  report.add({prefix + "whole run", seconds, "s", 0, false, ""});
  report.add(
      {prefix + "requests", ended / seconds, "/s", rate, true, rate > 0 ? "the rate at which they were sent" : ""});
  if (limits.any()) {
    report.add({prefix + "goodput", static_cast<double>(figures.good) / seconds, "/s", rate, true,
                "requests that kept the limits"});
  }
  report.add({prefix + "output tokens", static_cast<double>(figures.tokens) / seconds, "tokens/s", 0, true, ""});
  report.add({prefix + "prompt tokens", static_cast<double>(load.prompt_tokens()) / seconds, "tokens/s", 0, true, ""});
  const auto add = [&](const std::string& name, const Spread& spread, double floor, const std::string& against) {
    report.add({prefix + name + ", p50", spread.p50 * kMs, "ms", floor * kMs, false, against});
    report.add({prefix + name + ", p90", spread.p90 * kMs, "ms", floor * kMs, false, against});
    report.add({prefix + name + ", p99", spread.p99 * kMs, "ms", floor * kMs, false, against});
  };
  add("first token", figures.ttft, round_trip, round_trip > 0 ? "a status query's round trip" : "");
  add("time per output token", figures.tpot, 0, "");
  add("between tokens", figures.itl, 0, "");
  add("whole answer", figures.e2e, 0, "");
}

// In the table where adapters are few, in JSON always.
void add_adapters(BenchReport& report, const std::string& prefix, const std::map<std::string, LoadFigures>& adapters,
                  double seconds) {
  for (const auto& [name, figures] : adapters) {
    const bool detail = adapters.size() > kAdaptersInDetail;
    const std::string label = prefix + (name == comm::kBaseModel ? std::string("base model") : name) + ": ";
    const auto add = [&](const std::string& what, double value, const char* unit, bool rate) {
      report.add({label + what, value, unit, 0, rate, "", detail});
    };
    add("requests", static_cast<double>(figures.requests), "", true);
    add("output tokens", static_cast<double>(figures.tokens) / seconds, "tokens/s", true);
    add("first token, p50", figures.ttft.p50 * kMs, "ms", false);
    add("first token, p99", figures.ttft.p99 * kMs, "ms", false);
    add("time per output token, p50", figures.tpot.p50 * kMs, "ms", false);
    add("time per output token, p99", figures.tpot.p99 * kMs, "ms", false);
  }
}

// What --plot shows: of several rates, curves over them.
class Plots {
 public:
  explicit Plots(int32_t gpus) : gpus_(gpus) {}

  void add(const Load& load, const LoadFigures& figures) {
    const double rate = static_cast<double>(figures.requests - figures.failed) / load.seconds;
    const double tokens = static_cast<double>(figures.tokens) / load.seconds / gpus_;
    const auto point = [&](Curve& curve, double seconds) { curve.points.emplace_back(rate, seconds * kMs); };
    point(ttft_[0], figures.ttft.p50);
    point(ttft_[1], figures.ttft.p99);
    point(tpot_[0], figures.tpot.p50);
    point(tpot_[1], figures.tpot.p99);
    if (figures.tpot.p50 > 0) users_.points.emplace_back(1 / figures.tpot.p50, tokens);
  }

  std::vector<Chart> charts() const {
    return {{"Time to the first token over the load", "requests/s", "ms", {ttft_[0], ttft_[1]}},
            {"Time per output token over the load", "requests/s", "ms", {tpot_[0], tpot_[1]}},
            {"What a user gets against what a GPU gives", "tokens/s of a user (p50)", "tokens/s of a GPU", {users_}}};
  }

 private:
  const double gpus_;
  Curve ttft_[2] = {{"p50", {}}, {"p99", {}}}, tpot_[2] = {{"p50", {}}, {"p99", {}}};
  Curve users_{"by load", {}};
};

Result<Load> run_one(Server& server, Planned planned, const BenchFlags& flags, double rate, const std::string& what) {
  LoadOptions options;
  options.request_rate = rate;
  options.burstiness = flags.serve.burstiness;
  options.max_concurrency = static_cast<size_t>(flags.max_concurrency);
  options.seed = flags.serve.seed;
  options.send_times = std::move(planned.times);
  ProgressLine line(STDERR_FILENO);
  const auto begin = std::chrono::steady_clock::now();
  const auto count = static_cast<int64_t>(planned.requests.size());
  options.on_progress = [&](size_t ended, int64_t tokens) {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    line.show({what, static_cast<int64_t>(ended), count, "requests",
               rate_text(static_cast<double>(tokens) / std::max(seconds, 1e-3)) + " tokens/s"});
  };
  // A server that is gone is told as server_lost.
  return run_load(*server.client, std::move(planned.requests), options, [] { return false; });
}

}  // namespace

Result<void> check_serve_flags(const BenchFlags& flags) {
  if (const auto limits = parse_goodput(flags.serve.goodput); !limits) return tl::unexpected(limits.error());
  for (const std::string& text : flags.serve.request_rates) {
    if (const auto rate = parse_rate(text); !rate) return tl::unexpected(rate.error());
  }
  return {};
}

Result<void> bench_serve(const BenchFlags& flags, BenchReport& report) {
  const ServeLoadFlags& serve = flags.serve;
  const auto limits = parse_goodput(serve.goodput);
  if (!limits) return tl::unexpected(limits.error());
  std::vector<double> rates;
  for (const std::string& text : serve.request_rates) {
    const auto rate = parse_rate(text);
    if (!rate) return tl::unexpected(rate.error());
    rates.push_back(*rate);
  }
  if (rates.empty() || !serve.trace.empty()) rates = {0};
  auto server = serve.http.url.empty() ? connect_over_zmq(serve.zmq) : connect_to_url(serve);
  if (!server) return tl::unexpected(server.error());
  const int32_t vocab_size = serve.vocab_size > 0 ? serve.vocab_size : server->vocab_size;
  report.describe(serve.http.url.empty() ? "zmq" : "url", server->where);
  report.describe("model", server->model);
  report.describe("num_prompts", flags.num_prompts);
  report.describe("max_concurrency", flags.max_concurrency);
  report.describe("input_len", flags.input_len);
  report.describe("output_len", flags.output_len);
  if (rates.size() == 1 && rates.front() > 0) report.describe("request_rate", rates.front());
  if (rates.size() == 1 && rates.front() == 0) report.describe("request_rate", "inf");
  if (serve.burstiness != 1) report.describe("burstiness", serve.burstiness);
  if (!serve.trace.empty()) report.describe("trace", serve.trace);
  if (!serve.adapters.empty()) report.describe("adapters", serve.adapters.size());
  Plots plots(serve.gpus);
  for (const double rate : rates) {
    auto planned = plan_requests(flags, vocab_size);
    if (!planned) return tl::unexpected(planned.error());
    const std::vector<std::string> adapters = planned->adapters;
    const std::string name = rate > 0 ? fmt::format("{:g} requests/s", rate) : "no limit";
    const std::string prefix = rates.size() > 1 ? name + ": " : "";
    const auto load = run_one(*server, *std::move(planned), flags, rate, rates.size() > 1 ? name : "loading");
    if (!load) return tl::unexpected(load.error());
    const LoadFigures figures = figures_of(*load, *limits);
    if (figures.failed == figures.requests && load->first_error() != nullptr) {
      return fail("none of {} requests was answered: {}", figures.requests, *load->first_error());
    }
    add_figures(report, prefix, *load, figures, rate, server->round_trip, *limits);
    if (!serve.adapters.empty())
      add_adapters(report, prefix, figures_by_label(*load, adapters, *limits), load->seconds);
    plots.add(*load, figures);
  }
  return serve.plot.empty() ? Result<void>() : write_plot(serve.plot, plots.charts());
}

}  // namespace lorikeet::launcher
