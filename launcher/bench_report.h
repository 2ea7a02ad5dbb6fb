// The figures of a benchmark, each with its floor, as a table and as JSON.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace lorikeet::launcher {

inline constexpr double kMs = 1e3;  // in a second

struct Figure {
  std::string name;
  double value = 0;
  std::string unit;
  double floor = 0;          // of the same unit: a time can be no shorter, a rate no higher; 0: there is none
  bool rate = false;         // more is better
  std::string against = "";  // what the floor is, where it is not the report's usual one
  bool detail = false;       // in JSON alone

  // The share of what is possible: 1 at the floor; 0 where there is no floor.
  double share() const;
};

class BenchReport {
 public:
  explicit BenchReport(std::string name) : name_(std::move(name)) {}

  // Lines above the table, and their JSON: what was run on which machine.
  void describe(const std::string& key, const nlohmann::ordered_json& value) { setting_[key] = value; }
  void add(Figure figure) { figures_.push_back(std::move(figure)); }
  const std::vector<Figure>& figures() const { return figures_; }

  std::string table() const;
  nlohmann::ordered_json json() const;

 private:
  std::string name_;
  nlohmann::ordered_json setting_ = nlohmann::ordered_json::object();
  std::vector<Figure> figures_;
};

}  // namespace lorikeet::launcher
