// Reads the fields of a JSON object by name and type, and keeps the first error.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "comm/codec/json_type_name.h"
#include "comm/openai/openai_error.h"

namespace lorikeet::comm {

class BodyReader {
 public:
  explicit BodyReader(std::string_view body);  // which must outlive it

  // Each: nullopt (or the default) where the field is absent, null or wrong. Integers may be written as 16.0.
  std::optional<int64_t> integer(const char* name, int64_t least, int64_t most);
  std::optional<double> number(const char* name);
  std::optional<std::string> text(const char* name);
  bool boolean(const char* name, bool otherwise = false);
  std::vector<int32_t> integers(const char* name);
  std::vector<std::string> texts(const char* name);                  // one string is a list of one
  std::vector<std::pair<int32_t, double>> biases(const char* name);  // {"15": -100}

  // The value itself, null where it is absent; the caller checks it and says refuse().
  const nlohmann::json& value(const char* name);

  // Accepts fields that have no effect.
  void ignore(std::initializer_list<const char*> names);

  // A field that is not served. Null, false, 0, "" and empty lists and objects ask for nothing, and are fine.
  void refuse_unless_neutral(const char* name);

  void refuse(std::optional<std::string> param, std::string sentence);

  // After every field was asked for: the first error; nullopt: none. Fields that were not asked for are ignored, as in vLLM,
  // since clients send fields of newer servers.
  std::optional<OpenAiError> finish() { return std::move(error_); }

  // The names of some ignored fields, shortened, for people.
  std::vector<std::string> unknown() const;

  bool ok() const { return !error_; }

  std::string_view written() const { return written_; }  // the body

  const std::set<std::string, std::less<>>& known() const { return known_; }  // what was asked for so far

 private:
  const std::string_view written_;
  nlohmann::json body_ = nlohmann::json::object();
  std::set<std::string, std::less<>> known_;
  std::optional<OpenAiError> error_;
};

// The integer that a JSON number is, also written as 16.0; nullopt: it is none, or does not fit.
std::optional<int64_t> integer_of(const nlohmann::json& value);

}  // namespace lorikeet::comm
