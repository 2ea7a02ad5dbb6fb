#include "actors/head/grammar_request.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "comm/client/limits.h"
#include "kernels/base/json_nesting.h"

namespace lorikeet::actors {
namespace {

using Json = nlohmann::ordered_json;  // the order of a schema's properties is that of the answer's
using model::GrammarKind;
using model::GrammarSpec;
using Spec = Result<std::optional<GrammarSpec>>;

constexpr size_t kMaxChoices = 1024;
constexpr int kMostSpaces = 16;  // in a row, in JSON: an answer of spaces alone would never end

const Json& member(const Json& object, const char* key) {
  static const Json kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

Result<Json> parse(const char* name, const std::string& text) {
  // Before it is parsed: members are found one by one, which is slow for very many.
  if (text.size() > 2 * model::kMaxGrammarBytes) {
    return fail("{} has {} bytes, more than {}", name, text.size(), 2 * model::kMaxGrammarBytes);
  }
  if (nests_deeper(text, comm::kMaxJsonDepth))
    return fail("{} is nested deeper than {} levels", name, comm::kMaxJsonDepth);
  Json value = Json::parse(text, nullptr, false);
  if (!value.is_object()) return fail("{} must be an object", name);
  return value;
}

std::string text_of(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// A schema may also come as text.
GrammarSpec schema(const Json& value) {
  return {GrammarKind::json_schema, value.is_string() ? value.get<std::string>() : text_of(value)};
}

Spec of_response_format(const Json& format) {
  const Json& type = member(format, "type");
  if (type == "text") return std::nullopt;
  if (type == "json_object")
    return GrammarSpec{GrammarKind::json_schema, R"({"type": "object", "additionalProperties": true})"};
  if (type == "structural_tag") return GrammarSpec{GrammarKind::structural_tag, text_of(format)};
  if (type != "json_schema") {
    return fail("response_format.type must be \"text\", \"json_object\", \"json_schema\" or \"structural_tag\"");
  }
  const Json& wrapper = member(format, "json_schema");
  const Json& given = wrapper.is_object() ? member(wrapper, "schema") : wrapper;
  if (!given.is_object() && !given.is_boolean()) return fail("response_format.json_schema.schema must be an object");
  return schema(given);
}

Spec of_choice(const Json& list) {
  std::vector<std::string> choices;
  for (const Json& one : list) {
    if (!one.is_string() || choices.size() == kMaxChoices) {
      return fail("structured_outputs.choice must be a list of up to {} strings", kMaxChoices);
    }
    choices.push_back(one.get<std::string>());
  }
  if (choices.empty()) return fail("structured_outputs.choice is empty");
  return model::choice_grammar(choices);
}

Spec of_structured_outputs(const Json& given) {
  constexpr const char* kKinds[] = {"json", "regex", "choice", "grammar", "structural_tag", "json_object"};
  const char* kind = nullptr;
  for (const auto& item : given.items()) {
    if (item.value().is_null() || item.value() == false) continue;
    const auto found = std::find(std::begin(kKinds), std::end(kKinds), std::string_view(item.key()));
    if (found == std::end(kKinds)) return fail("structured_outputs.{} is not served here", item.key().substr(0, 64));
    if (kind != nullptr) return fail("structured_outputs has {} and {}, where one is expected", kind, *found);
    kind = *found;
  }
  if (kind == nullptr) return std::nullopt;
  const std::string name = kind;
  const Json& value = given[name];
  if (name == "json_object")
    return GrammarSpec{GrammarKind::json_schema, R"({"type": "object", "additionalProperties": true})"};
  if (name == "json") return schema(value);
  if (name == "choice") return of_choice(value);
  if (name == "structural_tag" && value.is_object()) return GrammarSpec{GrammarKind::structural_tag, text_of(value)};
  if (!value.is_string()) return fail("structured_outputs.{} must be a string", name);
  std::string text = value.get<std::string>();
  if (name == "structural_tag") return GrammarSpec{GrammarKind::structural_tag, std::move(text)};
  if (name == "regex") return GrammarSpec{GrammarKind::regex, std::move(text)};
  const bool gbnf = text.find("::=") != std::string::npos;
  return GrammarSpec{gbnf ? GrammarKind::ebnf : GrammarKind::lark, std::move(text)};
}

// A part of a request, and what goes wrong with it under its name.
Spec part(const char* name, const std::optional<comm::JsonText>& given, Spec (*read)(const Json&)) {
  if (!given) return std::nullopt;
  auto value = parse(name, given->text);
  if (!value) return tl::unexpected(value.error());
  auto spec = read(*value);
  if (!spec || !*spec) return spec;
  if (auto ok = model::check_grammar(**spec); !ok) return fail("{}: {}", name, ok.error().message);
  return spec;
}

}  // namespace

Spec grammar_of(const comm::GenerateRequest& request) {
  auto format = part("response_format", request.response_format, of_response_format);
  if (!format) return format;
  auto outputs = part("structured_outputs", request.structured_outputs, of_structured_outputs);
  if (!outputs) return outputs;
  if (*format && *outputs) return fail("response_format and structured_outputs exclude each other");
  return *format ? format : outputs;
}

Result<GrammarSpec> grammar_of_calls(const std::vector<std::string>& tools, const CallGrammar& calls) {
  const bool xml = calls.form == "qwen3_coder";
  Json tags = Json::array();
  for (const std::string& text : tools) {
    auto tool = parse("tools", text);
    if (!tool) return tl::unexpected(tool.error());
    const Json& function = member(*tool, "function");
    Json parameters = function.is_object() ? member(function, "parameters") : Json();
    if (!parameters.is_object()) parameters = {{"type", "object"}, {"properties", Json::object()}};
    const std::string name = function.is_object() ? function.value("name", std::string()) : std::string();
    Json content = {{"type", xml ? "qwen_xml_parameter" : "json_schema"}, {"json_schema", std::move(parameters)}};
    if (!xml) content["max_whitespace_cnt"] = kMostSpaces;
    tags.push_back({{"type", "tag"},
                    {"begin", xml ? "<tool_call>\n<function=" + name + ">\n"
                                  : "<tool_call>\n{\"name\": " + text_of(Json(name)) + ", \"arguments\": "},
                    {"content", std::move(content)},
                    {"end", xml ? "\n</function>\n</tool_call>" : "}\n</tool_call>"}});
  }
  const Json format = {{"type", "tags_with_separator"},
                       {"tags", std::move(tags)},
                       {"separator", "\n"},
                       {"at_least_one", true},
                       {"stop_after_first", calls.one}};
  return GrammarSpec{GrammarKind::structural_tag, text_of({{"type", "structural_tag"}, {"format", format}})};
}

}  // namespace lorikeet::actors
