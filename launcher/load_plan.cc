#include "launcher/load_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <random>

#include "comm/client/adapter_request.h"
#include "launcher/json_lines.h"

namespace lorikeet::launcher {

Result<AdapterMix> parse_adapter_mix(const std::string& text) {
  if (text == "round-robin") return AdapterMix::round_robin;
  if (text == "uniform") return AdapterMix::uniform;
  if (text == "zipf") return AdapterMix::zipf;
  return fail("--adapter-mix {}: give round-robin, uniform or zipf", text);
}

std::vector<std::string> draw_adapters(size_t requests, const std::vector<std::string>& adapters, AdapterMix mix,
                                       double zipf_exponent, uint64_t seed) {
  std::vector<std::string> drawn(requests, comm::kBaseModel);
  if (adapters.empty()) return drawn;
  if (mix == AdapterMix::round_robin) {
    for (size_t i = 0; i < requests; ++i) drawn[i] = adapters[i % adapters.size()];
    return drawn;
  }
  std::vector<double> weights(adapters.size(), 1);
  if (mix == AdapterMix::zipf) {
    for (size_t i = 0; i < weights.size(); ++i) weights[i] = std::pow(static_cast<double>(i + 1), -zipf_exponent);
  }
  std::mt19937_64 random(seed);
  std::discrete_distribution<size_t> which(weights.begin(), weights.end());
  for (std::string& adapter : drawn) adapter = adapters[which(random)];
  return drawn;
}

std::vector<double> send_times(size_t requests, double request_rate, double burstiness, uint64_t seed) {
  std::vector<double> times(requests, 0);
  if (request_rate <= 0) return times;
  std::mt19937_64 random(seed);
  std::gamma_distribution<double> distance(burstiness, 1 / (request_rate * burstiness));
  for (size_t i = 1; i < requests; ++i) times[i] = times[i - 1] + distance(random);
  return times;
}

Result<double> parse_rate(const std::string& text) {
  if (text == "inf") return 0.0;
  char* end = nullptr;
  const double rate = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(rate >= 0 && rate <= 1e6)) {
    return fail("--request-rate {}: give requests a second, up to 1,000,000, or inf", text);
  }
  return rate;
}

Result<std::vector<TraceEntry>> read_trace(const std::string& path, size_t most) {
  auto reader = LineReader::open(path);
  if (!reader) return tl::unexpected(reader.error());
  std::vector<TraceEntry> entries;
  while (entries.size() < most) {
    const auto line = reader->next();
    if (!line) break;
    const auto json = nlohmann::json::parse(*line, nullptr, false);
    const auto number = [&](const char* key, double low, double high) -> std::optional<double> {
      if (!json.is_object() || !json.contains(key) || !json[key].is_number()) return std::nullopt;
      const double value = json[key].get<double>();
      return value >= low && value <= high ? std::optional(value) : std::nullopt;
    };
    const auto milliseconds = number("timestamp", 0, 1e12);
    const auto input = number("input_length", 1, 1e8), output = number("output_length", 1, 1e8);
    if (!milliseconds || !input || !output) {
      return fail("{}, line {}: it is not {{\"timestamp\": milliseconds, \"input_length\": N, \"output_length\": N}}",
                  path, reader->line_number());
    }
    TraceEntry entry{*milliseconds / 1000, static_cast<int32_t>(*input), static_cast<int32_t>(*output), ""};
    if (json.contains("adapter") && json["adapter"].is_string()) entry.adapter = json["adapter"].get<std::string>();
    entries.push_back(std::move(entry));
  }
  if (entries.empty()) return fail("{}: there is no request in it", path);
  std::stable_sort(entries.begin(), entries.end(),
                   [](const TraceEntry& a, const TraceEntry& b) { return a.seconds < b.seconds; });
  const double begin = entries.front().seconds;
  for (TraceEntry& entry : entries) entry.seconds -= begin;
  return entries;
}

}  // namespace lorikeet::launcher
