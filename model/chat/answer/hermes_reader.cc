#include <nlohmann/json.hpp>
#include <utility>

#include "model/chat/answer/tool_call_reader.h"

namespace lorikeet::model {
namespace {

// Goes through the text byte by byte: JSON that is not whole yet has no parser.
class HermesReader final : public ToolCallReader {
 public:
  void push(std::string_view text, ToolCallPiece* piece) override {
    for (const char c : text) take(c);
    give(piece);
  }

  void end(ToolCallPiece* piece) override {
    give(piece);
    if (has_name_ && given_ == 0) piece->arguments += "{}";
  }

 private:
  enum class At : uint8_t { begin, key_or_end, key, colon, value, comma_or_end, over };

  void take(char c) {
    switch (at_) {
      case At::begin:
      case At::key_or_end:
      case At::colon:
      case At::comma_or_end:
        if (kWhiteSpace.find(c) == std::string_view::npos) take_between(c);
        return;
      case At::key:
        key_ += c;
        if (ends_string(c)) at_ = At::colon;
        return;
      case At::value:
        take_value(c);
        return;
      case At::over:
        return;
    }
  }

  void take_between(char c) {
    if (at_ == At::begin) {
      at_ = c == '{' ? At::key_or_end : At::over;
    } else if (at_ == At::key_or_end) {
      at_ = c == '"' ? At::key : At::over;
      key_ = c;
      in_string_ = true;
    } else if (at_ == At::colon) {
      at_ = c == ':' ? At::value : At::over;
      value_.clear();
      depth_ = 0;
    } else {
      at_ = c == ',' ? At::key_or_end : At::over;
    }
  }

  // Whether c, a byte of a string, is the quote that ends it.
  bool ends_string(char c) {
    if (std::exchange(escaped_, false)) return false;
    escaped_ = c == '\\';
    if (c != '"') return false;
    in_string_ = false;
    return true;
  }

  void take_value(char c) {
    if (in_string_) {
      value_ += c;
      if (ends_string(c) && depth_ == 0) end_value();
      return;
    }
    if (value_.empty() && kWhiteSpace.find(c) != std::string_view::npos) return;
    const bool closes = c == '}' || c == ']';
    if (depth_ == 0 && !value_.empty() && (c == ',' || closes)) {  // behind a number or a word
      end_value();
      return take(c);
    }
    value_ += c;
    in_string_ = c == '"';
    depth_ += c == '{' || c == '[' ? 1 : closes ? -1 : 0;
    if (closes && depth_ == 0) end_value();
  }

  void end_value() {
    at_ = At::comma_or_end;
    if (key_ == "\"name\"") {
      const auto name = nlohmann::json::parse(value_, nullptr, false);
      if (name.is_string() && !has_name_) name_ = name.get<std::string>();
      has_name_ = has_name_ || name.is_string();
    } else if (is_arguments()) {
      arguments_ = value_;
      whole_ = true;
    }
  }

  // The first ones: of a second such key nothing can be made any more.
  bool is_arguments() const { return !whole_ && (key_ == "\"arguments\"" || key_ == "\"parameters\""); }

  void give(ToolCallPiece* piece) {
    if (!has_name_) return;
    if (name_) piece->name = std::exchange(name_, std::nullopt);
    const bool runs = at_ == At::value && is_arguments();
    const std::string& arguments = runs ? value_ : arguments_;
    if (arguments.empty()) return;
    if (arguments[0] == '"') {  // JSON in a string: known when it is whole
      if (!whole_ || given_ > 0) return;
      const auto text = nlohmann::json::parse(arguments, nullptr, false);
      if (text.is_string()) piece->arguments += text.get<std::string>();
      given_ = arguments.size();
      return;
    }
    if (given_ < arguments.size()) piece->arguments.append(arguments, given_, std::string::npos);
    given_ = std::max(given_, arguments.size());
  }

  At at_ = At::begin;
  std::string key_, value_, arguments_;
  std::optional<std::string> name_;  // not given yet
  size_t given_ = 0;                 // bytes of the arguments
  bool whole_ = false, in_string_ = false, escaped_ = false;
  int depth_ = 0;
};

}  // namespace

std::unique_ptr<ToolCallReader> make_hermes_reader() {
  return std::make_unique<HermesReader>();
}

}  // namespace lorikeet::model
