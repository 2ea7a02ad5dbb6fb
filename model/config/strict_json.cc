#include "model/config/strict_json.h"

#include <fstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "kernels/base/printable.h"
#include "model/config/read_file.h"

namespace lorikeet::model {
namespace {

using nlohmann::json;

// Builds the document with a stack of its own, so that depth costs no call stack, and stops at the first broken limit.
template <class Json>
class Builder : public nlohmann::json_sax<Json> {
  using typename nlohmann::json_sax<Json>::number_integer_t;
  using typename nlohmann::json_sax<Json>::number_unsigned_t;
  using typename nlohmann::json_sax<Json>::number_float_t;
  using typename nlohmann::json_sax<Json>::string_t;
  using typename nlohmann::json_sax<Json>::binary_t;

 public:
  explicit Builder(const JsonLimits& limits) : limits_(limits) {}

  bool null() override { return add(Json(nullptr)) != nullptr; }
  bool boolean(bool value) override { return add(Json(value)) != nullptr; }
  bool number_integer(number_integer_t value) override { return add(Json(value)) != nullptr; }
  bool number_unsigned(number_unsigned_t value) override { return add(Json(value)) != nullptr; }
  bool number_float(number_float_t value, const string_t&) override { return add(Json(value)) != nullptr; }
  bool string(string_t& value) override { return add(Json(std::move(value))) != nullptr; }
  bool binary(binary_t&) override { return stop("binary data"); }

  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    if (stack_.back()->contains(name)) return stop(fmt::format("the key \"{}\" occurs twice", printable(name)));
    key_ = std::move(name);
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    if (error_.empty()) error_ = fmt::format("not valid JSON at byte {} ({})", position, error.what());
    return false;
  }

  Json take_root() { return std::move(root_); }
  const std::string& error() const { return error_; }

 private:
  bool stop(std::string why) {
    error_ = std::move(why);
    return false;
  }

  Json* add(Json value) {
    if (++values_ > limits_.max_values) {
      stop(fmt::format("more than {} values", limits_.max_values));
      return nullptr;
    }
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *stack_.back();
    if (parent.is_object()) return &(parent[key_] = std::move(value));
    parent.push_back(std::move(value));
    return &parent.back();
  }

  // Pointers into the document stay valid: only the innermost open value grows.
  bool open(Json value) {
    if (stack_.size() == limits_.max_depth) return stop(fmt::format("nested deeper than {} levels", limits_.max_depth));
    Json* place = add(std::move(value));
    if (place == nullptr) return false;
    stack_.push_back(place);
    return true;
  }

  bool close() {
    stack_.pop_back();
    return true;
  }

  const JsonLimits& limits_;
  Json root_;
  std::vector<Json*> stack_;
  std::string key_;
  std::string error_;
  size_t values_ = 0;
};

template <class Json>
Result<Json> parse(std::string_view text, std::string_view where, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return fail("{}: {} bytes of JSON, at most {} are read", where, text.size(), limits.max_bytes);
  }
  if (is_lfs_pointer(text, text.size())) return fail("{}: {}", where, kIsLfsPointer);
  Builder<Json> builder(limits);
  if (!Json::sax_parse(text.begin(), text.end(), &builder) || !builder.error().empty()) {
    return fail("{}: {}", where, builder.error().empty() ? "not valid JSON" : builder.error());
  }
  return builder.take_root();
}

}  // namespace

Result<json> parse_json(std::string_view text, std::string_view where, const JsonLimits& limits) {
  return parse<json>(text, where, limits);
}

Result<nlohmann::ordered_json> parse_ordered_json(std::string_view text, std::string_view where,
                                                  const JsonLimits& limits) {
  return parse<nlohmann::ordered_json>(text, where, limits);
}

Result<std::string> read_text_file(const std::filesystem::path& path, size_t max_bytes) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return fail("{}: no such file", path.string());
  const auto size = std::filesystem::file_size(path, error);
  if (error) return fail("{}: {}", path.string(), error.message());
  if (size > max_bytes) return fail("{}: {} bytes, at most {} are read", path.string(), size, max_bytes);
  std::ifstream file(path, std::ios::binary);
  std::string text(size, '\0');
  if (!file.read(text.data(), static_cast<std::streamsize>(size))) return fail("{}: cannot be read", path.string());
  return text;
}

Result<json> read_json_object(const std::filesystem::path& path, const JsonLimits& limits) {
  auto text = read_text_file(path, limits.max_bytes);
  if (!text) return tl::unexpected(text.error());
  auto value = parse_json(*text, path.string(), limits);
  if (value && !value->is_object()) return fail("{}: the root is not a JSON object", path.string());
  return value;
}

}  // namespace lorikeet::model
