#include "comm/openai/chat_messages.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

namespace lorikeet::comm {
namespace {

using nlohmann::json;

// A string, null, or a list of parts of which this model takes text alone.
std::optional<std::string> content_text(const json& content) {
  if (content.is_null()) return "";
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) return std::nullopt;
  std::string text;
  for (const json& part : content) {
    if (!part.is_object() || part.value("type", json()) != json("text")) return std::nullopt;
    const auto found = part.find("text");
    if (found == part.end() || !found->is_string()) return std::nullopt;
    if (&part != &content.front()) text += '\n';  // as vLLM joins them
    text += found->get_ref<const std::string&>();
  }
  return text;
}

}  // namespace

std::vector<Message> read_messages(BodyReader& body) {
  std::vector<Message> messages;
  const json& list = body.value("messages");
  if (!list.is_array() || list.empty()) {
    body.refuse("messages", list.is_null() ? "messages is missing" : "messages must be a list of at least one message");
    return messages;
  }
  for (const json& given : list) {
    const size_t index = messages.size();
    const std::string where = fmt::format("messages[{}]", index);
    if (!given.is_object() || !given.value("role", json()).is_string()) {
      body.refuse("messages", where + " must be an object with a role");
      return messages;
    }
    for (const char* name : {"tool_calls", "function_call", "audio"}) {
      const auto found = given.find(name);
      if (found != given.end() && !found->empty()) {
        body.refuse("messages", fmt::format("{}.{} is not served here", where, name));
        return messages;
      }
    }
    const auto content = content_text(given.value("content", json()));
    if (!content) {
      body.refuse("messages", where + ".content must be a string or a list of parts of the type text");
      return messages;
    }
    auto role = given["role"].get<std::string>();
    if (role == "developer") role = "system";  // OpenAI's later name for it
    messages.push_back({std::move(role), *content});
  }
  return messages;
}

}  // namespace lorikeet::comm
