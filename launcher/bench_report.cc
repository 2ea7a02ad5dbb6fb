#include "launcher/bench_report.h"

#include <fmt/format.h>

#include <algorithm>

namespace lorikeet::launcher {
namespace {

// What stands above the table: large numbers with a suffix of powers of 1000.
std::string setting(const nlohmann::ordered_json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_number() || value.get<double>() < 1e6) return value.dump();
  double number = value.get<double>();
  const char* suffix = "";
  for (const char* next : {" k", " M", " G", " T"}) {
    if (number < 1000) break;
    number /= 1000;
    suffix = next;
  }
  return fmt::format("{:.2f}{}", number, suffix);
}

std::string number(double value) {
  const double size = value < 0 ? -value : value;
  return size >= 1000 ? fmt::format("{:.0f}", value)
         : size >= 1  ? fmt::format("{:.2f}", value)
                      : fmt::format("{:.4f}", value);
}

// A share of next to nothing is not none.
std::string share_text(double share) {
  return share > 0 && share < 0.005 ? "<0.01" : fmt::format("{:.2f}", share);
}

}  // namespace

double Figure::share() const {
  if (floor <= 0 || value <= 0) return 0;
  return rate ? value / floor : floor / value;
}

std::string BenchReport::table() const {
  std::string out = fmt::format("bench {}\n", name_);
  for (const auto& [key, value] : setting_.items()) {
    out += fmt::format("  {}: {}\n", key, setting(value));
  }
  size_t width = 0;
  for (const Figure& figure : figures_) {
    if (!figure.detail) width = std::max(width, figure.name.size());
  }
  out += fmt::format("{:<{}}  {:>12} {:<9} {:>12}  {:>5}\n", "", width, "measured", "", "floor", "share");
  for (const Figure& figure : figures_) {
    if (figure.detail) continue;
    out += fmt::format("{:<{}}  {:>12} {:<9}", figure.name, width, number(figure.value), figure.unit);
    if (figure.floor > 0) out += fmt::format(" {:>12}  {:>5}", number(figure.floor), share_text(figure.share()));
    if (!figure.against.empty()) out += fmt::format("  ({})", figure.against);
    out.erase(out.find_last_not_of(' ') + 1);
    out += '\n';
  }
  return out;
}

nlohmann::ordered_json BenchReport::json() const {
  nlohmann::ordered_json out = {{"bench", name_}};
  for (const auto& [key, value] : setting_.items()) out[key] = value;
  out["figures"] = nlohmann::ordered_json::array();
  for (const Figure& figure : figures_) {
    nlohmann::ordered_json entry = {{"name", figure.name}, {"value", figure.value}, {"unit", figure.unit}};
    if (figure.floor > 0) {
      entry["floor"] = figure.floor;
      entry["share"] = figure.share();
    }
    if (!figure.against.empty()) entry["against"] = figure.against;
    out["figures"].push_back(std::move(entry));
  }
  return out;
}

}  // namespace lorikeet::launcher
