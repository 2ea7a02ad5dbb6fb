#include "comm/codec/bounded_json.h"

#include <cstdint>
#include <string>
#include <vector>

namespace lorikeet::comm {
namespace {

using nlohmann::json;

// Builds the document from the parser's events; returning false ends the parse with `error`.
class Builder {
 public:
  explicit Builder(const JsonLimits& limits) : limits_(limits) {}

  json take() { return std::move(root_); }
  const std::string& error() const { return error_; }

  bool null() { return add(nullptr) != nullptr; }
  bool boolean(bool value) { return add(value) != nullptr; }
  bool number_integer(int64_t value) { return add(value) != nullptr; }
  bool number_unsigned(uint64_t value) { return add(value) != nullptr; }
  bool number_float(double value, const std::string&) { return add(value) != nullptr; }
  bool string(std::string& value) { return add(std::move(value)) != nullptr; }
  bool binary(json::binary_t&) { return fail_with("a binary value"); }  // not in JSON text

  bool start_object(size_t) { return open(json::object()); }
  bool start_array(size_t) { return open(json::array()); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }

  bool key(std::string& name) {
    if (!count()) return false;
    if (open_.back()->contains(name)) return fail_with(fmt::format("the key {} appears twice", excerpt(name)));
    key_ = std::move(name);
    return true;
  }

  bool parse_error(size_t, const std::string&, const json::exception& exception) {
    // "[json.exception.parse_error.101] parse error at line 1, column 5: syntax error ...": without its prefix, and not
    // with the whole of a long token.
    std::string_view what = exception.what();
    if (const size_t end = what.find("] "); end != std::string_view::npos) what.remove_prefix(end + 2);
    return fail_with(fmt::format("not JSON: {}", what.substr(0, 200)));
  }

 private:
  bool fail_with(std::string error) {
    error_ = std::move(error);
    return false;
  }

  bool count() {
    return ++values_ <= limits_.max_values || fail_with(fmt::format("more than {} values", limits_.max_values));
  }

  json* add(json value) {
    if (!count()) return nullptr;
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[key_] = std::move(value));
  }

  bool open(json value) {
    if (open_.size() == limits_.max_depth) return fail_with(fmt::format("nested deeper than {}", limits_.max_depth));
    json* added = add(std::move(value));
    if (added == nullptr) return false;
    open_.push_back(added);  // stays where it is: its parent grows no more while it is open
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  const JsonLimits limits_;
  json root_;
  std::vector<json*> open_;
  std::string key_;
  size_t values_ = 0;
  std::string error_;
};

}  // namespace

Result<json> parse_bounded_json(std::string_view text, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes)
    return fail("{} bytes of JSON where {} are allowed", text.size(), limits.max_bytes);
  Builder builder(limits);
  if (!json::sax_parse(text.begin(), text.end(), &builder)) return fail("{}", builder.error());
  return builder.take();
}

std::string excerpt(std::string_view text) {
  constexpr size_t kMax = 64;
  if (text.size() <= kMax) return fmt::format("\"{}\"", text);
  size_t end = kMax;
  while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) --end;  // not within a character
  return fmt::format("\"{}...\"", text.substr(0, end));
}

}  // namespace lorikeet::comm
