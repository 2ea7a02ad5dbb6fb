#include "comm/client/json_order.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

namespace lorikeet::comm {
namespace {

// Walks through JSON that is known to be well-formed.
class Walk {
 public:
  explicit Walk(std::string_view text) : text_(text) { skip_space(); }

  char next() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  // Past one character, and the space behind it.
  void step() {
    ++at_;
    skip_space();
  }

  // The text of the value that begins here.
  std::string_view value() {
    const size_t begin = at_;
    int depth = 0;
    do {
      const char c = next();
      if (c == '"') {
        skip_string();
        continue;
      }
      depth += c == '{' || c == '[' ? 1 : c == '}' || c == ']' ? -1 : 0;
      ++at_;
      if (depth == 0 && c != '}' && c != ']') {
        while (at_ < text_.size() && std::string_view(",]} \t\r\n").find(text_[at_]) == std::string_view::npos) ++at_;
      }
    } while (depth > 0 && at_ < text_.size());
    const std::string_view whole = text_.substr(begin, at_ - begin);
    skip_space();
    return whole;
  }

 private:
  void skip_string() {
    for (++at_; at_ < text_.size() && text_[at_] != '"'; ++at_) at_ += text_[at_] == '\\' ? 1 : 0;
    ++at_;
  }
  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) ++at_;
  }

  std::string_view text_;
  size_t at_ = 0;
};

struct Member {
  std::string_view key;  // as written, in its quotes
  std::string_view value;
};

std::vector<Member> members(std::string_view object) {
  std::vector<Member> list;
  Walk walk(object);
  if (walk.next() != '{') return list;
  for (walk.step(); walk.next() == '"' || walk.next() == ',';) {
    if (walk.next() == ',') walk.step();
    const std::string_view key = walk.value();
    walk.step();  // the colon
    list.push_back({key, walk.value()});
  }
  return list;
}

std::vector<std::string_view> elements(std::string_view array) {
  std::vector<std::string_view> list;
  Walk walk(array);
  if (walk.next() != '[') return list;
  for (walk.step(); walk.next() != ']' && walk.next() != '\0';) {
    list.push_back(walk.value());
    if (walk.next() == ',') walk.step();
  }
  return list;
}

std::optional<std::string_view> find(const std::vector<Member>& members, std::string_view key) {
  const auto found = std::find_if(members.begin(), members.end(), [key](const Member& one) {
    return one.key.size() == key.size() + 2 && one.key.substr(1, key.size()) == key;
  });
  return found == members.end() ? std::nullopt : std::optional(found->value);
}

void rewrite(std::vector<JsonText>& texts, std::optional<std::string_view> list) {
  if (texts.empty() || !list) return;
  const auto written = elements(*list);
  if (written.size() != texts.size()) return;
  for (size_t i = 0; i < texts.size(); ++i) texts[i].text = written[i];
}

void rewrite(std::optional<JsonText>& text, std::optional<std::string_view> value) {
  if (text && value) text->text = *value;
}

void rewrite(Message& message, std::string_view object) {
  const auto written = members(object);
  if (!message.more.text.empty()) {
    std::string more;
    for (const auto& [key, value] : written) {
      const std::string_view name = key.substr(1, key.size() - 2);
      const bool own = name == "role" || name == "reasoning_content" || name == "reasoning" || name == "tool_calls" ||
                       name == "refusal" || name == "annotations" || (name == "content" && value.front() != '[');
      if (own || value == "null") continue;
      more += more.empty() ? "{" : ",";
      more.append(key).append(":").append(value);
    }
    if (!more.empty()) message.more.text = more + "}";
  }
  const auto calls = find(written, "tool_calls");
  if (!calls) return;
  const auto list = elements(*calls);
  for (size_t i = 0; i < message.tool_calls.size() && i < list.size(); ++i) {
    const auto function = find(members(list[i]), "function");
    const auto arguments = function ? find(members(*function), "arguments") : std::nullopt;
    if (arguments && arguments->front() == '{') message.tool_calls[i].arguments = *arguments;
  }
}

}  // namespace

void keep_written_order(std::string_view text, GenerateRequest& request) {
  const auto hands_on = [](const Message& m) { return !m.more.text.empty() || !m.tool_calls.empty(); };
  const bool any_message =
      request.messages && std::any_of(request.messages->begin(), request.messages->end(), hands_on);
  if (!any_message && request.tools.empty() && request.documents.empty() && !request.chat_template_kwargs &&
      !request.response_format && !request.structured_outputs) {
    return;
  }
  const auto written = members(text);
  rewrite(request.tools, find(written, "tools"));
  rewrite(request.documents, find(written, "documents"));
  rewrite(request.chat_template_kwargs, find(written, "chat_template_kwargs"));
  rewrite(request.response_format, find(written, "response_format"));
  rewrite(request.structured_outputs, find(written, "structured_outputs"));
  const auto messages = any_message ? find(written, "messages") : std::nullopt;
  if (!messages) return;
  const auto list = elements(*messages);
  for (size_t i = 0; i < list.size() && i < request.messages->size(); ++i) {
    if (hands_on((*request.messages)[i])) rewrite((*request.messages)[i], list[i]);
  }
}

std::string_view written_member(std::string_view object, std::string_view name) {
  return find(members(object), name).value_or(std::string_view());
}

}  // namespace lorikeet::comm
