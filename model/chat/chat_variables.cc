#include "model/chat/chat_variables.h"

#include <memory>
#include <utility>

#include "model/chat/jinja/json_text.h"
#include "model/chat/python_json.h"

namespace lorikeet::model {
namespace {

using jinja::Dict;
using jinja::Text;
using jinja::Value;

// A JSON value, bounded in depth, no key twice.
Result<Value> parse(const std::string& text, bool object) {
  if (auto checked = to_python_json(text); !checked) return tl::unexpected(checked.error());
  Value value = jinja::parse_json(text);
  if (object && !value.dict()) return fail("not a JSON object");
  return value;
}

Result<Value> parse_list(const std::vector<std::string>& texts, const char* name) {
  if (texts.empty()) return Value(jinja::None{});
  std::vector<Value> items;
  for (size_t i = 0; i < texts.size(); ++i) {
    auto item = parse(texts[i], false);
    if (!item) return fail("{}[{}]: {}", name, i, item.error().message);
    if (!item->dict()) return fail("{}[{}] is not a JSON object", name, i);
    items.push_back(*std::move(item));
  }
  return jinja::make_list(std::move(items));
}

void put(Dict& dict, std::string_view key, Value value) {
  // What every message has.
  static const Value kRole = Text::own("role"), kContent = Text::own("content");
  dict.set(key == "role" ? kRole : key == "content" ? kContent : Value(Text::own(std::string(key))), std::move(value));
}

Value dict_value(std::shared_ptr<Dict> dict) {
  return std::shared_ptr<const Dict>(std::move(dict));
}

Result<Value> call_value(const ToolCall& call) {
  auto arguments = parse(call.arguments.empty() ? "{}" : call.arguments, false);
  if (!arguments) return arguments;
  auto function = std::make_shared<Dict>(), whole = std::make_shared<Dict>();
  put(*function, "name", Text::foreign(call.name));
  put(*function, "arguments", *std::move(arguments));
  if (!call.id.empty()) put(*whole, "id", Text::foreign(call.id));
  put(*whole, "type", Text::own("function"));
  put(*whole, "function", dict_value(std::move(function)));
  return dict_value(std::move(whole));
}

// The last text of a list of parts, with the mark behind it.
Result<Value> marked_content(const Value& content) {
  if (const Text* text = content.text()) {
    Text marked = *text;
    marked.append(Text::foreign(std::string(kContinueMark)));
    return Value(std::move(marked));
  }
  std::vector<Value> parts;
  if (content.list()) parts = content.list()->items;
  for (size_t i = parts.size(); i-- > 0;) {
    const Value* text = parts[i].dict() ? parts[i].dict()->find("text") : nullptr;
    if (!text || !text->text()) continue;
    auto part = std::make_shared<Dict>(*parts[i].dict());
    put(*part, "text", *marked_content(*text));
    parts[i] = dict_value(std::move(part));
    return jinja::make_list(std::move(parts));
  }
  return fail("continue_final_message: the last message has no text to go on");
}

Value part_of(const Text& words) {
  auto part = std::make_shared<Dict>();
  put(*part, "type", Text::own("text"));
  put(*part, "text", words);
  return dict_value(std::move(part));
}

// A part of text as templates know it: clients also send bare strings, the Responses API's names, and refusals back.
Value text_part(const Value& given) {
  if (const Text* text = given.text()) return part_of(*text);
  const Value* const type = given.dict() ? given.dict()->find("type") : nullptr;
  if (!type || !type->text()) return given;
  const std::string_view name = type->text()->view();
  const Value* const words = given.dict()->find(name == "refusal" ? "refusal" : "text");
  const bool renamed = name == "refusal" || name == "input_text" || name == "output_text";
  return renamed && words && words->text() ? part_of(*words->text()) : given;
}

Value content_value(const Value& given) {
  if (!given.list()) return given;
  std::vector<Value> parts;
  for (const Value& part : given.list()->items) parts.push_back(text_part(part));
  return jinja::make_list(std::move(parts));
}

Result<Value> message_value(const ChatMessage& message, size_t index, ChatOptions::Contents contents, bool continued) {
  auto dict = std::make_shared<Dict>();
  put(*dict, "role", Text::foreign(message.role));
  put(*dict, "content", Text::foreign(message.content));
  if (message.reasoning_content) {
    put(*dict, "thinking", Text::foreign(*message.reasoning_content));  // an older name for it
    put(*dict, "reasoning_content", Text::foreign(*message.reasoning_content));
  }
  if (!message.tool_calls.empty()) {
    std::vector<Value> calls;
    for (size_t c = 0; c < message.tool_calls.size(); ++c) {
      auto call = call_value(message.tool_calls[c]);
      if (!call) return fail("messages[{}].tool_calls[{}].arguments: {}", index, c, call.error().message);
      calls.push_back(*std::move(call));
    }
    put(*dict, "tool_calls", jinja::make_list(std::move(calls)));
  }
  if (!message.more.empty()) {
    auto more = parse(message.more, true);
    if (!more) return fail("messages[{}]: {}", index, more.error().message);
    for (const auto& [key, value] : more->dict()->items) {
      const bool is_content = key.text()->view() == "content";
      if (contents != ChatOptions::Contents::text || !is_content)
        dict->set(key, is_content ? content_value(value) : value);
    }
  }
  if (const Text* text = dict->find("content")->text(); text && contents == ChatOptions::Contents::parts) {
    put(*dict, "content", jinja::make_list({part_of(*text)}));
  }
  if (continued) {
    auto content = marked_content(*dict->find("content"));
    if (!content) return content;
    put(*dict, "content", *std::move(content));
  }
  return dict_value(std::move(dict));
}

}  // namespace

Result<jinja::Evaluator::Variables> chat_variables(const std::vector<ChatMessage>& messages,
                                                   const ChatOptions& options) {
  jinja::Evaluator::Variables variables;
  std::vector<Value> list;
  list.reserve(messages.size());
  for (size_t i = 0; i < messages.size(); ++i) {
    const bool continued = options.continue_final_message && i + 1 == messages.size();
    auto message = message_value(messages[i], i, options.contents, continued);
    if (!message) return tl::unexpected(message.error());
    list.push_back(*std::move(message));
  }
  auto tools = parse_list(options.tools, "tools");
  if (!tools) return tl::unexpected(tools.error());
  auto documents = parse_list(options.documents, "documents");
  if (!documents) return tl::unexpected(documents.error());
  std::vector<std::string> told = options.default_variables;
  told.push_back(options.variables);
  for (const std::string& object : told) {
    if (object.empty()) continue;
    auto more = parse(object, true);
    if (!more) return fail("chat_template_kwargs: {}", more.error().message);
    for (const auto& [name, value] : more->dict()->items) variables[name.text()->bytes()] = value;
  }
  if (!options.enable_thinking) variables["enable_thinking"] = false;
  variables["messages"] = jinja::make_list(std::move(list));
  variables["tools"] = *std::move(tools);
  variables["documents"] = *std::move(documents);
  variables["add_generation_prompt"] = options.add_generation_prompt;
  return variables;
}

}  // namespace lorikeet::model
