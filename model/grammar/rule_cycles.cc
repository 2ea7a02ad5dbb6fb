#include "model/grammar/rule_cycles.h"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace lorikeet::model {
namespace {

using nlohmann::json;

// Of XGrammar's cpp/grammar_impl.h. An expression is its type, how many numbers follow, and these.
enum Type : int64_t { kEmpty = 3, kRule = 4, kSequence = 5, kChoices = 6, kRepeat = 8 };

class Rules {
 public:
  explicit Rules(const json& grammar)
      : data_(grammar.at("grammar_expr_data").get<std::vector<int64_t>>()),
        begins_(grammar.at("grammar_expr_indptr").get<std::vector<size_t>>()) {
    for (const json& rule : grammar.at("rules")) {
      names_.push_back(rule.at(0).get<std::string>());
      alias_.push_back(alias_of(rule.at(1).get<int64_t>()));
    }
  }

  const std::string& name(size_t rule) const { return names_[rule]; }

  // One that leads to itself.
  std::optional<size_t> cycle() const {
    std::vector<size_t> seen_from(alias_.size(), SIZE_MAX);  // by the rule where the walk began
    for (size_t begin = 0; begin < alias_.size(); ++begin) {
      for (std::optional<size_t> rule = begin; rule && *rule < alias_.size(); rule = alias_[*rule]) {
        if (seen_from[*rule] == begin) return rule;
        if (seen_from[*rule] != SIZE_MAX) break;
        seen_from[*rule] = begin;
      }
    }
    return std::nullopt;
  }

 private:
  int64_t type(int64_t expression) const { return data_.at(begins_.at(static_cast<size_t>(expression))); }
  std::span<const int64_t> numbers(int64_t expression) const {
    const size_t begin = begins_.at(static_cast<size_t>(expression));
    return std::span(data_).subspan(begin + 2, static_cast<size_t>(data_.at(begin + 1)));
  }

  // The only rule that a body is made of, repeated or not; none where it has something else.
  std::optional<size_t> alias_of(int64_t body) const {
    if (type(body) != kChoices || numbers(body).size() != 1) return std::nullopt;
    const int64_t only = numbers(body)[0];
    if (type(only) != kSequence) return std::nullopt;
    std::optional<size_t> rule;
    for (const int64_t element : numbers(only)) {
      if (type(element) == kEmpty) continue;
      if (rule || (type(element) != kRule && type(element) != kRepeat)) return std::nullopt;
      rule = static_cast<size_t>(numbers(element)[0]);
    }
    return rule;
  }

  const std::vector<int64_t> data_;
  const std::vector<size_t> begins_;
  std::vector<std::string> names_;
  std::vector<std::optional<size_t>> alias_;  // [rule]
};

}  // namespace

Result<void> check_rule_cycles(std::string_view serialized) {
  try {
    const Rules rules(json::parse(serialized));
    if (const auto rule = rules.cycle()) return fail("the rule \"{}\" is made of itself alone", rules.name(*rule));
    return {};
  } catch (const std::exception& error) {  // of another version of the library, which reads its own grammars otherwise
    return fail("the grammar cannot be looked into: {}", error.what());
  }
}

}  // namespace lorikeet::model
