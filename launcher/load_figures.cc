#include "launcher/load_figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>

namespace lorikeet::launcher {
namespace {

class Collector {
 public:
  explicit Collector(const GoodputLimits& limits) : limits_(limits) {}

  void add(const RequestTimes& times) {
    ++figures_.requests;
    figures_.tokens += times.tokens;
    if (!times.error.empty()) {
      ++figures_.failed;
      return;
    }
    const double whole = times.done - times.sent, first = times.first_token - times.sent;
    const double per_token = times.seconds_per_token();
    e2e_.push_back(whole);
    if (times.tokens > 0) ttft_.push_back(first);
    if (times.tokens > 1) tpot_.push_back(per_token);
    itl_.insert(itl_.end(), times.gaps.begin(), times.gaps.end());
    const auto keeps = [](double value, double limit) { return limit <= 0 || value <= limit; };
    if (keeps(first, limits_.ttft) && keeps(per_token, limits_.tpot) && keeps(whole, limits_.e2e)) ++figures_.good;
  }

  LoadFigures figures() && {
    figures_.ttft = spread_of(std::move(ttft_));
    figures_.tpot = spread_of(std::move(tpot_));
    figures_.itl = spread_of(std::move(itl_));
    figures_.e2e = spread_of(std::move(e2e_));
    return figures_;
  }

 private:
  const GoodputLimits limits_;
  LoadFigures figures_;
  std::vector<double> ttft_, tpot_, itl_, e2e_;
};

}  // namespace

Spread spread_of(std::vector<double> values) {
  if (values.empty()) return {};
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  return {sum / static_cast<double>(values.size()), percentile(values, 0.5), percentile(values, 0.9),
          percentile(values, 0.99)};
}

Result<GoodputLimits> parse_goodput(const std::vector<std::string>& texts) {
  GoodputLimits limits;
  for (const std::string& text : texts) {
    const size_t colon = text.find(':');
    const std::string name = text.substr(0, colon), value = colon == std::string::npos ? "" : text.substr(colon + 1);
    double* limit = name == "ttft"   ? &limits.ttft
                    : name == "tpot" ? &limits.tpot
                    : name == "e2el" ? &limits.e2e
                                     : nullptr;
    char* end = nullptr;
    const double milliseconds = std::strtod(value.c_str(), &end);
    if (limit == nullptr || value.empty() || *end != '\0' || !(milliseconds > 0 && milliseconds < 1e9)) {
      return fail("--goodput {}: give ttft:MS, tpot:MS or e2el:MS", text);
    }
    *limit = milliseconds / 1000;
  }
  return limits;
}

std::vector<double> steady_gaps(const Load& load) {
  double begin = 0, end = load.seconds;
  for (const RequestTimes& request : load.requests) {
    begin = std::max(begin, request.first_token);
    end = std::min(end, request.last_token);
  }
  std::vector<double> gaps;
  for (const RequestTimes& request : load.requests) {
    double at = request.first_token;
    for (const float gap : request.gaps) {
      if (at >= begin && at + gap <= end) gaps.push_back(gap);
      at += gap;
    }
  }
  return gaps;
}

LoadFigures figures_of(const Load& load, const GoodputLimits& limits) {
  Collector all(limits);
  for (const RequestTimes& times : load.requests) all.add(times);
  return std::move(all).figures();
}

std::map<std::string, LoadFigures> figures_by_label(const Load& load, const std::vector<std::string>& labels,
                                                    const GoodputLimits& limits) {
  std::map<std::string, Collector> collectors;
  for (size_t i = 0; i < load.requests.size() && i < labels.size(); ++i) {
    collectors.try_emplace(labels[i], limits).first->second.add(load.requests[i]);
  }
  std::map<std::string, LoadFigures> figures;
  for (auto& [label, collector] : collectors) figures.emplace(label, std::move(collector).figures());
  return figures;
}

}  // namespace lorikeet::launcher
