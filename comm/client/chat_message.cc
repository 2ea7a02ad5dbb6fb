#include "comm/client/chat_message.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "comm/client/client_messages.h"
#include "comm/codec/json_codec.h"
#include "comm/codec/json_type_name.h"

namespace lorikeet::comm {
namespace {

using nlohmann::json;

const json& member(const json& object, const char* name) {
  static const json kNull;
  const auto found = object.find(name);
  return found == object.end() ? kNull : *found;
}

std::string text_of(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::optional<JsonProblem> read_call(const json& given, const std::string& where, ToolCall& call) {
  if (!given.is_object() || !member(given, "function").is_object()) {
    return JsonProblem{where, "must be an object with a function"};
  }
  const json &function = given["function"], &id = member(given, "id"), &arguments = member(function, "arguments");
  if (!member(function, "name").is_string()) return JsonProblem{where + ".function.name", "must be a string"};
  call.name = function["name"].get<std::string>();
  if (id.is_string()) call.id = id.get<std::string>();
  if (!arguments.is_null()) call.arguments = arguments.is_string() ? arguments.get<std::string>() : text_of(arguments);
  return std::nullopt;
}

// What a part says, null where it is none of text. A part may be a bare string, have one of the names that the Responses
// API gives it, or be a refusal that is sent back.
const json& words_of(const json& part) {
  static const json kNull;
  if (part.is_string()) return part;
  if (!part.is_object()) return kNull;
  const json& type = member(part, "type");
  if (type == "refusal") return member(part, "refusal");
  return type == "text" || type == "input_text" || type == "output_text" ? member(part, "text") : kNull;
}

std::optional<JsonProblem> read_parts(const json& parts, std::string& text) {
  for (const json& part : parts) {
    const json& words = words_of(part);
    if (!words.is_string()) return JsonProblem{"content", "must be a string or a list of parts of the type text"};
    if (&part != &parts.front()) text += '\n';  // as vLLM joins them
    text += words.get_ref<const std::string&>();
  }
  return std::nullopt;
}

}  // namespace

json JsonText::json_form() const {
  json value = json::parse(text, nullptr, false);
  return value.is_discarded() ? json() : value;
}

std::optional<JsonProblem> JsonText::read_json_form(const json& form) {
  text = text_of(form);
  return std::nullopt;
}

json tool_call_form(const ToolCall& call) {
  return {{"id", call.id}, {"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
}

json Message::json_form() const {
  json form = more.text.empty() ? json::object() : more.json_form();
  if (!form.is_object()) form = json::object();
  form["role"] = role;
  if (!form.contains("content")) form["content"] = content;
  if (reasoning_content) form["reasoning_content"] = *reasoning_content;
  if (tool_calls.empty()) return form;
  json& calls = form["tool_calls"] = json::array();
  for (const ToolCall& call : tool_calls) calls.push_back(tool_call_form(call));
  return form;
}

std::optional<JsonProblem> Message::read_json_form(const json& form) {
  if (!form.is_object()) return JsonProblem{"", fmt::format("must be an object, not {}", json_type_name(form))};
  if (!form.contains("role")) return JsonProblem{"role", "is missing"};
  json others = json::object();
  bool has_content = false;
  for (const auto& [key, value] : form.items()) {
    std::optional<JsonProblem> problem;
    if (key == "role") {
      if (!value.is_string()) {
        return JsonProblem{"role", fmt::format("must be a string, not {}", json_type_name(value))};
      }
      role = value == "developer" ? "system" : value.get<std::string>();  // OpenAI's later name for it
    } else if (value.is_null()) {
      has_content = has_content || key == "content";
    } else if (key == "content") {
      has_content = true;
      if (value.is_string()) {
        content = value.get<std::string>();
      } else if (value.is_array()) {
        problem = read_parts(value, content);
        others[key] = value;
      } else {
        problem = JsonProblem{
            key, fmt::format("must be a string or a list of parts of the type text, not {}", json_type_name(value))};
      }
    } else if (key == "reasoning_content" || key == "reasoning") {  // vLLM's older and newer name
      if (!value.is_string()) {
        return JsonProblem{key, fmt::format("must be a string, not {}", json_type_name(value))};
      }
      if (!reasoning_content || key == "reasoning_content") reasoning_content = value.get<std::string>();
    } else if (key == "tool_calls" && value.is_array()) {
      for (size_t i = 0; i < value.size() && !problem; ++i) {
        problem = read_call(value[i], fmt::format("tool_calls[{}]", i), tool_calls.emplace_back());
      }
    } else if (key == "tool_calls" || key == "function_call" || key == "audio") {
      problem = JsonProblem{key, key == "tool_calls" ? "must be a list" : "is not served here"};
    } else if (key != "refusal" && key != "annotations") {  // of an answer that is sent back
      others[key] = value;
    }
    if (problem) return problem;
  }
  if (!has_content && tool_calls.empty()) return JsonProblem{"content", "is missing"};
  if (!others.empty()) more.text = text_of(others);
  return std::nullopt;
}

void add_tool_calls(const std::vector<ToolCallDelta>& pieces, std::vector<ToolCall>& calls) {
  for (const ToolCallDelta& piece : pieces) {
    if (piece.index < 0 || static_cast<size_t>(piece.index) > calls.size()) continue;  // the next call, at the most
    if (static_cast<size_t>(piece.index) == calls.size()) calls.emplace_back();
    ToolCall& call = calls[static_cast<size_t>(piece.index)];
    if (piece.id) call.id = *piece.id;
    if (piece.name) call.name = *piece.name;
    if (piece.arguments) call.arguments += *piece.arguments;
  }
}

size_t chat_bytes(const GenerateRequest& request) {
  size_t bytes = 0;
  if (request.messages) {
    for (const Message& message : *request.messages) bytes += message.bytes();
  }
  for (const auto* list : {&request.tools, &request.documents}) {
    for (const JsonText& object : *list) bytes += object.text.size();
  }
  if (request.chat_template) bytes += request.chat_template->size();
  for (const auto* text : {&request.chat_template_kwargs, &request.response_format, &request.structured_outputs}) {
    if (*text) bytes += (*text)->text.size();
  }
  return bytes;
}

size_t Message::bytes() const {
  size_t bytes = role.size() + content.size() + more.text.size();
  if (reasoning_content) bytes += reasoning_content->size();
  for (const ToolCall& call : tool_calls) {
    bytes += sizeof(ToolCall) + call.id.size() + call.name.size() + call.arguments.size();
  }
  return bytes;
}

}  // namespace lorikeet::comm
