#include "launcher/svg_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>

namespace lorikeet::launcher {
namespace {

constexpr double kWidth = 720, kHeight = 380;
constexpr double kLeft = 80, kRight = 180, kTop = 40, kBottom = 56;
constexpr int kTicks = 5;
// Distinct also for people who do not tell red from green (Okabe and Ito).
constexpr std::array<const char*, 7> kColours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                 "#e69f00", "#56b4e9", "#000000"};

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

// A distance of ticks of 1, 2 or 5 times a power of ten, so that kTicks of them reach `most`.
double tick_distance(double most) {
  if (!(most > 0)) return 1.0 / kTicks;
  const double least = most / kTicks;
  const double power = std::pow(10, std::floor(std::log10(least)));
  for (const double step : {1.0, 2.0, 5.0}) {
    if (step * power >= least * (1 - 1e-9)) return step * power;
  }
  return 10 * power;
}

bool is_finite(const std::pair<double, double>& point) {
  return std::isfinite(point.first) && std::isfinite(point.second);
}

std::string draw(const Chart& chart, double top) {
  double most_x = 0, most_y = 0;
  for (const Curve& curve : chart.curves) {
    for (const auto& point : curve.points) {
      if (!is_finite(point)) continue;
      most_x = std::max(most_x, point.first);
      most_y = std::max(most_y, point.second);
    }
  }
  const double step_x = tick_distance(most_x), step_y = tick_distance(most_y);
  const double plot_width = kWidth - kLeft - kRight, plot_height = kHeight - kTop - kBottom;
  const auto x_of = [&](double x) { return kLeft + plot_width * x / (kTicks * step_x); };
  const auto y_of = [&](double y) { return top + kTop + plot_height * (1 - y / (kTicks * step_y)); };

  std::string out =
      fmt::format("<text x=\"{}\" y=\"{}\" class=\"title\">{}</text>\n", kLeft, top + 24, escaped(chart.title));
  for (int i = 0; i <= kTicks; ++i) {
    const double x = x_of(i * step_x), y = y_of(i * step_y);
    out += fmt::format("<path class=\"grid\" d=\"M{:.1f} {:.1f}H{:.1f}M{:.1f} {:.1f}V{:.1f}\"/>\n", kLeft, y,
                       kLeft + plot_width, x, y_of(0), top + kTop);
    out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{:g}</text>\n", x, y_of(0) + 18,
                       i * step_x);
    out +=
        fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{:g}</text>\n", kLeft - 8, y + 4, i * step_y);
  }
  out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n", kLeft + plot_width / 2,
                     y_of(0) + 42, escaped(chart.x_axis));
  out += fmt::format("<text transform=\"translate({:.1f} {:.1f}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
                     18.0, top + kTop + plot_height / 2, escaped(chart.y_axis));
  for (size_t i = 0; i < chart.curves.size(); ++i) {
    const char* colour = kColours[i % kColours.size()];
    std::string path, dots;
    for (const auto& point : chart.curves[i].points) {
      if (!is_finite(point)) continue;
      path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", x_of(point.first), y_of(point.second));
      dots += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"{}\"/>", x_of(point.first),
                          y_of(point.second), colour);
    }
    const double legend = top + kTop + 8 + 20.0 * static_cast<double>(i);
    out += fmt::format("<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>{}\n", path, colour, dots);
    out += fmt::format("<path d=\"M{:.1f} {:.1f}h20\" stroke=\"{}\" stroke-width=\"2\"/>", kLeft + plot_width + 12,
                       legend, colour);
    out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", kLeft + plot_width + 38, legend + 4,
                       escaped(chart.curves[i].name));
  }
  return out;
}

}  // namespace

std::string svg_of(const std::vector<Chart>& charts) {
  const double height = kHeight * static_cast<double>(std::max<size_t>(charts.size(), 1));
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" role=\"img\">\n"
      "<style>text{{font:12px sans-serif;fill:#333}}.title{{font:bold 14px sans-serif}}"
      ".grid{{stroke:#ddd;fill:none}}</style>\n"
      "<rect width=\"{0}\" height=\"{1}\" fill=\"#fff\"/>\n",
      kWidth, height);
  for (size_t i = 0; i < charts.size(); ++i) out += draw(charts[i], kHeight * static_cast<double>(i));
  return out + "</svg>\n";
}

Result<void> write_plot(const std::string& path, const std::vector<Chart>& charts) {
  std::ofstream file(path, std::ios::binary);
  if (!(file << svg_of(charts) << std::flush)) return fail("--plot {}: the file cannot be written", path);
  return {};
}

}  // namespace lorikeet::launcher
