#include "launcher/load_figures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "launcher/svg_plot.h"

namespace lorikeet::launcher {
namespace {

using testing::HasSubstr;
using testing::Not;

// Two requests that end well, and one that fails.
Load example() {
  Load load;
  load.seconds = 10;
  RequestTimes fast;
  fast.sent = 1;
  fast.first_token = 1.25;
  fast.last_token = 1.75;
  fast.done = 1.8;
  fast.tokens = 3;
  fast.gaps = {0.125F, 0.375F};
  RequestTimes slow = fast;
  slow.first_token = 3;
  slow.last_token = 5;
  slow.done = 5;
  slow.gaps = {1, 1};
  RequestTimes failed;
  failed.error = "too long";
  load.requests = {fast, slow, failed};
  return load;
}

TEST(SteadyGaps, AreThoseWhileEveryRequestHasItsFirstTokenAndNoneItsLast) {
  Load load;
  load.seconds = 10;
  RequestTimes early;  // tokens at 1, 2, 4, 8
  early.first_token = 1;
  early.last_token = 8;
  early.gaps = {1, 2, 4};
  RequestTimes late;  // tokens at 2, 3, 6, 9
  late.first_token = 2;
  late.last_token = 9;
  late.gaps = {1, 3, 3};
  load.requests = {early, late};
  EXPECT_THAT(steady_gaps(load), testing::ElementsAre(2, 4, 1, 3));
  late.first_token = 9;
  load.requests = {early, late};
  EXPECT_THAT(steady_gaps(load), testing::IsEmpty());
  EXPECT_THAT(steady_gaps({}), testing::IsEmpty());
}

TEST(LoadFigures, AreThoseOfTheField) {
  const LoadFigures figures = figures_of(example(), {});
  EXPECT_EQ(figures.requests, 3u);
  EXPECT_EQ(figures.failed, 1u);
  EXPECT_EQ(figures.good, 2u) << "there are no limits";
  EXPECT_EQ(figures.tokens, 6);
  EXPECT_DOUBLE_EQ(figures.ttft.p50, 0.25);
  EXPECT_DOUBLE_EQ(figures.ttft.p99, 2);
  EXPECT_DOUBLE_EQ(figures.tpot.p50, 0.25);
  EXPECT_DOUBLE_EQ(figures.tpot.mean, 0.625);
  EXPECT_DOUBLE_EQ(figures.itl.p50, 0.375);
  EXPECT_DOUBLE_EQ(figures.e2e.p99, 4);
}

TEST(LoadFigures, CountRequestsThatKeepEveryLimit) {
  const auto limits = parse_goodput({"ttft:500", "tpot:300"}).value();
  EXPECT_EQ(figures_of(example(), limits).good, 1u);
  EXPECT_EQ(figures_of(example(), parse_goodput({"e2el:100"}).value()).good, 0u);
  for (const char* wrong : {"ttft", "ttft:", "ttft:-1", "itl:5", "tpot:fast"}) {
    EXPECT_THAT(parse_goodput({wrong}).error().message, HasSubstr("give ttft:MS")) << wrong;
  }
}

TEST(LoadFigures, AreToldApartByAdapter) {
  const auto figures = figures_by_label(example(), {"kjv", "moby", "kjv"}, {});
  ASSERT_EQ(figures.size(), 2u);
  EXPECT_EQ(figures.at("kjv").requests, 2u);
  EXPECT_EQ(figures.at("kjv").failed, 1u);
  EXPECT_DOUBLE_EQ(figures.at("moby").ttft.p50, 2);
}

TEST(SvgPlot, DrawsEveryFinitePoint) {
  const std::string svg =
      svg_of({{"a < b", "x", "y", {{"p50", {{1, 10}, {2, 20}, {3, std::nan("")}}}, {"p99", {{1, 40}}}}}});
  EXPECT_THAT(svg, HasSubstr("a &lt; b"));
  EXPECT_THAT(svg, HasSubstr(">p99</text>"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  size_t dots = 0;
  for (size_t at = svg.find("<circle"); at != std::string::npos; at = svg.find("<circle", at + 1)) ++dots;
  EXPECT_EQ(dots, 3u);
  // The scale of y ends at 50, in steps of 10.
  EXPECT_THAT(svg, HasSubstr(">50</text>"));
}

TEST(SvgPlot, DrawsNothingOfNothing) {
  EXPECT_THAT(svg_of({{"empty", "x", "y", {}}}), HasSubstr("</svg>"));
}

}  // namespace
}  // namespace lorikeet::launcher
