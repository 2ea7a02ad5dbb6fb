// A JSON value that is handed on as it was written: a tool, a schema, what a chat template is told.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

namespace lorikeet::comm {

// What is wrong with a value, and with which member of it ("" where it is the value itself).
struct JsonProblem {
  std::string member;
  std::string what;  // as it goes on behind the member's name: "must be a string, not a number"
};

// In JSON it is the value, in cereal its text. Read from a document its objects have their keys in another order than
// they were written in (json_order.h puts that right, where the text is at hand).
struct JsonText {
  std::string text = {};

  nlohmann::json json_form() const;  // null where the text is not JSON
  std::optional<JsonProblem> read_json_form(const nlohmann::json& form);

  bool operator==(const JsonText&) const = default;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("text", s.text);
  }
};

}  // namespace lorikeet::comm
