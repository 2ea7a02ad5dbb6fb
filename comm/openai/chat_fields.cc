#include "comm/openai/chat_fields.h"

#include <fmt/format.h>

#include "comm/client/json_order.h"

namespace lorikeet::comm {
namespace {

using nlohmann::json;

JsonText json_text(const json& value) {
  return {value.dump(-1, ' ', false, json::error_handler_t::replace)};
}

std::vector<Message> read_messages(BodyReader& body) {
  std::vector<Message> messages;
  const json& list = body.value("messages");
  if (!list.is_array() || list.empty()) {
    body.refuse("messages", list.is_null() ? "messages is missing" : "messages must be a list of at least one message");
    return messages;
  }
  for (const json& given : list) {
    const std::string where = fmt::format("messages[{}]", messages.size());
    if (!given.is_object() || !given.value("role", json()).is_string()) {
      body.refuse("messages", where + " must be an object with a role");
      return messages;
    }
    if (const auto problem = messages.emplace_back().read_json_form(given)) {
      body.refuse("messages", fmt::format("{}.{} {}", where, problem->member, problem->what));
      return messages;
    }
  }
  return messages;
}

std::vector<JsonText> read_objects(BodyReader& body, const char* name) {
  std::vector<JsonText> objects;
  const json& list = body.value(name);
  if (list.is_null()) return objects;
  if (!list.is_array()) {
    body.refuse(name, fmt::format("{} must be a list of objects, not {}", name, json_type_name(list)));
    return objects;
  }
  for (const json& given : list) {
    if (!given.is_object()) {
      body.refuse(name, fmt::format("{}[{}] must be an object, not {}", name, objects.size(), json_type_name(given)));
      return objects;
    }
    objects.push_back(json_text(given));
  }
  return objects;
}

std::vector<JsonText> read_tools(BodyReader& body) {
  const json& list = body.value("tools");
  for (size_t i = 0; list.is_array() && i < list.size(); ++i) {
    const json& tool = list[i];
    const json function = tool.is_object() ? tool.value("function", json()) : json();
    if (tool.is_object() && tool.value("type", json("function")) != "function") {
      body.refuse("tools", fmt::format("tools[{}].type must be \"function\"", i));
    } else if (!function.is_object() || !function.value("name", json()).is_string()) {
      body.refuse("tools", fmt::format("tools[{}].function must be an object with a name", i));
    }
  }
  return read_objects(body, "tools");
}

}  // namespace

void read_chat_fields(BodyReader& body, GenerateRequest& to) {
  to.messages = read_messages(body);
  to.tools = read_tools(body);
  to.documents = read_objects(body, "documents");
  to.chat_template = body.text("chat_template");
  const json& variables = body.value("chat_template_kwargs");
  if (variables.is_object()) {
    to.chat_template_kwargs = json_text(variables);
  } else if (!variables.is_null()) {
    body.refuse("chat_template_kwargs",
                fmt::format("chat_template_kwargs must be an object, not {}", json_type_name(variables)));
  }
  to.continue_final_message = body.boolean("continue_final_message");
  if (!body.value("add_generation_prompt").is_null()) {
    to.add_generation_prompt = body.boolean("add_generation_prompt");
  }
  if (body.ok()) keep_written_order(body.written(), to);
}

}  // namespace lorikeet::comm
