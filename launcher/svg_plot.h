// Line charts as SVG, for figures that are looked at without any tool but a browser.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "kernels/base/error.h"

namespace lorikeet::launcher {

struct Curve {
  std::string name;
  std::vector<std::pair<double, double>> points;  // (x, y), in the order in which they are joined
};

struct Chart {
  std::string title, x_axis, y_axis;
  std::vector<Curve> curves;
};

// The charts, one below the other, each from 0 to a round number above what is largest. Values that are not
// finite are left out.
std::string svg_of(const std::vector<Chart>& charts);

// Writes them to the file that --plot names.
Result<void> write_plot(const std::string& path, const std::vector<Chart>& charts);

}  // namespace lorikeet::launcher
