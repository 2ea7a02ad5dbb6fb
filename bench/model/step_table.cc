#include "bench/model/step_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <functional>
#include <iterator>
#include <sstream>

namespace lorikeet::bench {
namespace {

constexpr std::array<int32_t, 13> kRows = {1, 2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 192, 256};
// Room for the steps themselves is left below 32k, which the model was trained for, and 128k, which it reaches with YaRN.
constexpr std::array<int32_t, 5> kContexts = {512, 4096, 8192, 32512, 130816};
constexpr int32_t kMixedRows = 32;  // that go on while prompts arrive
constexpr std::array<int32_t, 6> kBudgets = {0, 128, 256, 512, 1024, 2048};
constexpr double kMostCost = 1.03;

std::string_view name_of(StepKind kind) {
  switch (kind) {
    case StepKind::plain:
      return "plain";
    case StepKind::one_adapter:
      return "one-adapter";
    case StepKind::own_adapters:
      return "own-adapters";
    case StepKind::draw:
      return "draw";
    case StepKind::mixed:
      return "mixed";
  }
  return "";
}

std::string word(std::string text) {
  for (char& c : text) {
    if (c == ' ') c = '-';
  }
  return text;
}

}  // namespace

std::string StepPoint::key() const {
  std::string key = fmt::format("{}/{}/{}", context, fp8 ? "fp8" : "fp16", name_of(kind));
  if (kind == StepKind::draw || kind == StepKind::mixed) key += fmt::format("-{}", variant);
  return key + fmt::format("/{}", rows);
}

std::vector<StepPoint> step_points(int32_t num_draws) {
  std::vector<StepPoint> points;
  for (const int32_t context : kContexts) {
    for (const bool fp8 : {false, true}) {
      const auto all_rows = [&](StepKind kind, int32_t variant) {
        for (const int32_t rows : kRows) points.push_back({context, fp8, kind, variant, rows});
      };
      all_rows(StepKind::plain, 0);
      if (fp8) continue;
      all_rows(StepKind::one_adapter, 0);
      all_rows(StepKind::own_adapters, 0);
      for (int32_t draw = 1; draw < num_draws && context == kContexts.front(); ++draw) all_rows(StepKind::draw, draw);
      // Last, as prompts lower the clocks of what follows them for a while.
      for (const int32_t budget : kBudgets) points.push_back({context, fp8, StepKind::mixed, budget, kMixedRows});
    }
  }
  return points;
}

StepTable::StepTable(std::filesystem::path path, const std::string& executable, std::string device)
    : path_(std::move(path)), prefix_(executable + ' ' + word(std::move(device)) + ' ') {
  std::ifstream file(path_);
  std::string line;
  while (std::getline(file, line)) {
    if (file.eof()) {  // without its end: it was cut off
      ends_line_ = false;
      break;
    }
    if (line.rfind(prefix_, 0) != 0) continue;
    std::istringstream words(line.substr(prefix_.size()));
    std::string point, rest;
    StepRecord record;
    if (!(words >> point)) continue;
    if (words >> record.ms >> record.gpu_ms >> record.floor_ms >> record.p99_ms) {
      if (words >> rest) continue;
    } else if (line == prefix_ + point + " -") {
      record = {};
      record.fits = false;
    } else {
      continue;
    }
    records_[point] = record;
  }
}

const StepRecord* StepTable::find(const StepPoint& point) const {
  const auto found = records_.find(point.key());
  return found == records_.end() ? nullptr : &found->second;
}

bool StepTable::add(const StepPoint& point, const StepRecord& record) {
  records_[point.key()] = record;
  std::ofstream file(path_, std::ios::app);
  if (!ends_line_) file << '\n';
  ends_line_ = true;
  file << prefix_ << point.key();
  if (record.fits) {
    file << fmt::format(" {:.4f} {:.4f} {:.4f} {:.4f}\n", record.ms, record.gpu_ms, record.floor_ms, record.p99_ms);
  } else {
    file << " -\n";
  }
  return static_cast<bool>(file.flush());
}

std::vector<StepPoint> StepTable::next_group(std::span<const StepPoint> points) const {
  std::vector<StepPoint> group;
  for (const StepPoint& point : points) {
    if (find(point) == nullptr && (group.empty() || group.front().of_group(point))) group.push_back(point);
  }
  return group;
}

size_t StepTable::done(std::span<const StepPoint> points) const {
  return static_cast<size_t>(
      std::count_if(points.begin(), points.end(), [&](const StepPoint& point) { return find(point) != nullptr; }));
}

std::string digest_of(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) return "";
  const std::string bytes{std::istreambuf_iterator<char>(stream), {}};
  return fmt::format("{:016x}", std::hash<std::string_view>{}(bytes));
}

std::string table_of(const StepTable& table, std::span<const StepPoint> points) {
  std::string text;
  std::string line_of;  // what the present line is of
  double cheapest = 0;  // token of a smaller batch
  for (const StepPoint& point : points) {
    const StepRecord* record = table.find(point);
    if (record == nullptr || !record->fits) continue;
    const std::string key = point.key();
    const std::string name = point.kind == StepKind::mixed ? key : key.substr(0, key.rfind('/'));
    if (name != line_of) {
      text +=
          fmt::format("{}{}, ms (x cost of a token in a smaller batch, where more than {}):", text.empty() ? "" : "\n",
                      name, kMostCost);
      line_of = name;
      cheapest = 0;
    }
    text += fmt::format(" {}: {:.3f}", point.rows, record->ms);
    const double cost = record->ms / point.rows;
    if (cheapest > 0 && cost > kMostCost * cheapest) text += fmt::format(" ({:.2f} x)", cost / cheapest);
    cheapest = cheapest > 0 ? std::min(cheapest, cost) : cost;
  }
  return text.empty() ? text : text + '\n';
}

}  // namespace lorikeet::bench
