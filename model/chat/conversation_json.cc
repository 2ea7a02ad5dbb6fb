#include "model/chat/conversation_json.h"

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "model/chat/python_json.h"

namespace lorikeet::model {
namespace {

using Json = nlohmann::ordered_json;

const Json& member(const Json& object, const char* key) {
  static const Json kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

Result<ToolCall> parse_call(const Json& json) {
  if (!json.is_object()) return fail("not an object");
  const Json& function = member(json, "function").is_object() ? member(json, "function") : json;
  const Json &name = member(function, "name"), &arguments = member(function, "arguments"), &id = member(json, "id");
  if (!name.is_string()) return fail("there is no name");
  ToolCall call;
  call.name = name.get<std::string>();
  if (!arguments.is_null()) call.arguments = arguments.is_string() ? arguments.get<std::string>() : arguments.dump();
  if (id.is_string()) call.id = id.get<std::string>();
  return call;
}

Result<ChatMessage> parse_message(const Json& json) {
  if (!json.is_object() || !member(json, "role").is_string()) return fail("not an object with a role");
  ChatMessage message;
  Json more = Json::object();
  for (const auto& [key, value] : json.items()) {
    if (value.is_null()) continue;  // as if it were absent
    if (key == "role") {
      message.role = value.get<std::string>();
    } else if (key == "content" && value.is_string()) {
      message.content = value.get<std::string>();
    } else if (key == "reasoning_content" && value.is_string()) {
      message.reasoning_content = value.get<std::string>();
    } else if (key == "tool_calls" && value.is_array()) {
      for (size_t c = 0; c < value.size(); ++c) {
        auto call = parse_call(value[c]);
        if (!call) return fail("tool_calls[{}]: {}", c, call.error().message);
        message.tool_calls.push_back(*std::move(call));
      }
    } else if (key == "content" && !value.is_array()) {
      return fail("content is neither a string nor a list of parts");
    } else {
      more[key] = value;
    }
  }
  if (!more.empty()) message.more = more.dump();
  return message;
}

Result<void> parse_objects(const Json& json, const char* name, std::vector<std::string>* objects) {
  if (json.is_null()) return {};
  if (!json.is_array()) return fail("{} is not a list", name);
  for (const Json& item : json) objects->push_back(item.dump());
  return {};
}

Result<void> parse_flag(const Json& json, const char* name, bool* flag) {
  if (json.is_null()) return {};
  if (!json.is_boolean()) return fail("{} is not a boolean", name);
  *flag = json.get<bool>();
  return {};
}

Result<void> check_members(const Json& json) {
  for (const auto& [key, value] : json.items()) {
    bool known = false;
    for (const char* name : {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message",
                             "enable_thinking", "chat_template_kwargs"}) {
      known = known || key == name;
    }
    if (!known) return fail("there is no field \"{}\"", key.substr(0, 80));
  }
  return {};
}

}  // namespace

Result<Conversation> parse_conversation(std::string_view text) {
  if (auto checked = to_python_json(text); !checked) return tl::unexpected(checked.error());
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return fail("not a JSON object");
  if (auto ok = check_members(json); !ok) return tl::unexpected(ok.error());
  Conversation conversation;
  const Json& messages = member(json, "messages");
  if (!messages.is_array()) return fail("messages is not a list");
  for (size_t i = 0; i < messages.size(); ++i) {
    auto message = parse_message(messages[i]);
    if (!message) return fail("messages[{}]: {}", i, message.error().message);
    conversation.messages.push_back(*std::move(message));
  }
  ChatOptions& options = conversation.options;
  for (const auto& [name, list] : {std::pair{"tools", &options.tools}, std::pair{"documents", &options.documents}}) {
    if (auto ok = parse_objects(member(json, name), name, list); !ok) return tl::unexpected(ok.error());
  }
  if (auto ok =
          parse_flag(member(json, "continue_final_message"), "continue_final_message", &options.continue_final_message);
      !ok) {
    return tl::unexpected(ok.error());
  }
  options.add_generation_prompt = !options.continue_final_message;
  for (const auto& [name, flag] : {std::pair{"add_generation_prompt", &options.add_generation_prompt},
                                   std::pair{"enable_thinking", &options.enable_thinking}}) {
    if (auto ok = parse_flag(member(json, name), name, flag); !ok) return tl::unexpected(ok.error());
  }
  // Said or left out is not the same to templates that do not think by themselves.
  if (member(json, "enable_thinking") == Json(true))
    options.default_variables.push_back(R"({"enable_thinking": true})");
  if (const Json& more = member(json, "chat_template_kwargs"); !more.is_null()) options.variables = more.dump();
  return conversation;
}

}  // namespace lorikeet::model
