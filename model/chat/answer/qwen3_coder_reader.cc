#include <nlohmann/json.hpp>
#include <utility>

#include "kernels/base/json_nesting.h"
#include "model/chat/answer/tool_call_reader.h"

namespace lorikeet::model {
namespace {

using nlohmann::json;

constexpr std::string_view kFunction = "<function=", kFunctionEnd = "</function>",
                           kParameter = "<parameter=", kParameterEnd = "</parameter>";

const json& member(const json& object, const char* key) {
  static const json kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

bool allows_string(const json& schema) {
  if (!schema.is_object()) return true;
  if (const json& type = member(schema, "type"); type.is_string()) {
    return type == "string" || type == "enum";
  } else if (type.is_array()) {
    return std::find(type.begin(), type.end(), "string") != type.end();
  }
  for (const char* name : {"anyOf", "oneOf"}) {
    const json& several = member(schema, name);
    if (several.is_array() && !several.empty()) return std::any_of(several.begin(), several.end(), allows_string);
  }
  return true;
}

constexpr size_t kMaxValueDepth = 64;  // of a value: what is nested deeper is handed on as a string

// What a value that is no string spells.
std::optional<json> value_of(std::string_view text) {
  if (text == "True" || text == "true") return json(true);
  if (text == "False" || text == "false") return json(false);
  if (text == "None" || text == "null") return json();
  if (nests_deeper(text, kMaxValueDepth)) return std::nullopt;
  json value = json::parse(text, nullptr, false);
  return value.is_discarded() ? std::nullopt : std::optional<json>(std::move(value));
}

class Qwen3CoderReader final : public ToolCallReader {
 public:
  explicit Qwen3CoderReader(std::shared_ptr<const StringParameters> parameters) : parameters_(std::move(parameters)) {}

  void push(std::string_view text, ToolCallPiece* piece) override {
    rest_ += text;
    while (advance(piece)) {
    }
  }

  // A call that was cut off keeps what is whole of it.
  void end(ToolCallPiece* piece) override { close(piece); }

 private:
  // Takes the next thing that is whole; false: there is none.
  bool advance(ToolCallPiece* piece) {
    if (over_) return false;
    if (!has_name_) {
      const size_t begin = rest_.find(kFunction), end = begin == std::string::npos ? begin : rest_.find('>', begin);
      if (end == std::string::npos) return false;
      name_ = rest_.substr(begin + kFunction.size(), end - begin - kFunction.size());
      piece->name = name_;
      has_name_ = true;
      rest_.erase(0, end + 1);
      return true;
    }
    const size_t parameter = rest_.find(kParameter), function_end = rest_.find(kFunctionEnd);
    if (function_end < parameter) {
      close(piece);
      return false;
    }
    const size_t key_end = parameter == std::string::npos ? parameter : rest_.find('>', parameter);
    const size_t end = key_end == std::string::npos ? key_end : rest_.find(kParameterEnd, key_end);
    if (end == std::string::npos) return false;
    const std::string key = rest_.substr(parameter + kParameter.size(), key_end - parameter - kParameter.size());
    std::string_view value = std::string_view(rest_).substr(key_end + 1, end - key_end - 1);
    if (value.starts_with('\n')) value.remove_prefix(1);
    if (value.ends_with('\n')) value.remove_suffix(1);
    piece->arguments += std::exchange(any_, true) ? ", " : "{";
    piece->arguments += text_of(json(key)) + ": " + text_of(typed(key, value));
    rest_.erase(0, end + kParameterEnd.size());
    return true;
  }

  void close(ToolCallPiece* piece) {
    if (!has_name_ || std::exchange(over_, true)) return;
    piece->arguments += any_ ? "}" : "{}";
  }

  json typed(const std::string& key, std::string_view value) const {
    const auto function = parameters_->find(name_);
    if (function == parameters_->end()) return json(value);
    const auto parameter = function->second.find(key);
    if (parameter == function->second.end() || parameter->second) return json(value);
    auto spelled = value_of(value);
    return spelled ? *std::move(spelled) : json(value);
  }

  static std::string text_of(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

  std::shared_ptr<const StringParameters> parameters_;
  std::string rest_, name_;
  bool any_ = false, over_ = false;
};

}  // namespace

StringParameters string_parameters(const std::vector<std::string>& tools) {
  StringParameters result;
  for (const std::string& text : tools) {
    const json tool = json::parse(text, nullptr, false);
    if (!tool.is_object()) continue;
    const json& function = member(tool, "function").is_object() ? member(tool, "function") : tool;
    const json &name = member(function, "name"), &schema = member(function, "parameters");
    if (!name.is_string() || !schema.is_object()) continue;
    const json& properties = member(schema, "properties");
    if (!properties.is_object()) continue;
    auto& known = result[name.get<std::string>()];
    for (const auto& [key, property] : properties.items()) known[key] = allows_string(property);
  }
  return result;
}

std::unique_ptr<ToolCallReader> make_qwen3_coder_reader(std::shared_ptr<const StringParameters> parameters) {
  return std::make_unique<Qwen3CoderReader>(std::move(parameters));
}

}  // namespace lorikeet::model
