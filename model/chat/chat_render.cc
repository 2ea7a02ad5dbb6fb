#include "model/chat/chat_render.h"

#include <string_view>
#include <utility>

#include "model/chat/python_json.h"

namespace lorikeet::model {
namespace {

constexpr std::string_view kToolsIntroduction =
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function "
    "signatures within <tools></tools> XML tags:\n<tools>";
constexpr std::string_view kCallsIntroduction =
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n";
constexpr std::string_view kCallExample = R"({"name": <function-name>, "arguments": <args-json-object>})";

// Puts a prompt together; neighbours of one kind become one part.
class Prompt {
 public:
  void own(std::string_view text) { add(text, true, false); }
  void body(std::string_view text) { add(text, false, false); }
  void body_apart(std::string_view text) { add(text, false, true); }
  void open(std::string_view role) {
    own("<|im_start|>");
    own(role);
    own("\n");
  }
  void close() { own("<|im_end|>\n"); }
  std::vector<PromptPart> take() { return std::move(parts_); }

 private:
  void add(std::string_view text, bool own_words, bool apart) {
    if (text.empty()) return;
    if (!apart && !parts_.empty() && parts_.back().own_words == own_words) {
      parts_.back().text += text;
    } else {
      parts_.push_back({std::string(text), own_words, apart});
    }
  }

  std::vector<PromptPart> parts_;
};

bool is_system(const ChatMessage& message) {
  return message.role == "system";
}
bool is_tool(const std::vector<ChatMessage>& messages, size_t i) {
  return i < messages.size() && messages[i].role == "tool";
}

std::string_view strip_newlines(std::string_view text, bool front, bool back) {
  while (front && text.starts_with('\n')) text.remove_prefix(1);
  while (back && text.ends_with('\n')) text.remove_suffix(1);
  return text;
}

Result<std::string> arguments_json(const ToolCall& call) {
  if (call.arguments.empty()) return std::string("{}");
  return to_python_json(call.arguments);
}

// All messages' arguments and the tools are checked and spelt out before anything is rendered.
struct Spelt {
  std::vector<std::string> tools;
  std::vector<std::vector<std::string>> arguments;  // by message and call
};

Result<Spelt> spell(const std::vector<ChatMessage>& messages, const ChatOptions& options) {
  Spelt spelt;
  for (size_t i = 0; i < options.tools.size(); ++i) {
    auto tool = to_python_json(options.tools[i]);
    if (!tool) return fail("tools[{}]: {}", i, tool.error().message);
    if (!tool->starts_with('{')) return fail("tools[{}] is not a JSON object", i);
    spelt.tools.push_back(std::move(*tool));
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    spelt.arguments.emplace_back();
    for (size_t c = 0; c < messages[i].tool_calls.size(); ++c) {
      auto arguments = arguments_json(messages[i].tool_calls[c]);
      if (!arguments) return fail("messages[{}].tool_calls[{}].arguments: {}", i, c, arguments.error().message);
      spelt.arguments.back().push_back(std::move(*arguments));
    }
  }
  return spelt;
}

Result<void> check(const std::vector<ChatMessage>& messages, const ChatOptions& options, bool has_tools) {
  if (messages.empty()) return fail("there are no messages");
  if (!has_tools && !options.tools.empty()) return fail("tools: this model's chat template has none");
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    const bool turn = is_system(message) || message.role == "user" || message.role == "assistant";
    if (!turn && message.role != "tool") {
      return fail("messages[{}]: the role \"{}\" is none of system, user, assistant and tool", i, message.role);
    }
    if (!has_tools && message.role == "tool") {
      return fail("messages[{}]: the role is tool, but this model's chat template has no tools", i);
    }
    if (message.tool_calls.empty()) continue;
    if (message.role != "assistant") return fail("messages[{}]: tool_calls in a message of the {}", i, message.role);
    if (!has_tools) return fail("messages[{}]: tool_calls, but this model's chat template has no tools", i);
  }
  return {};
}

void render_qwen(const std::vector<ChatMessage>& messages, const std::string& default_system, bool generate,
                 Prompt* prompt) {
  auto turn = [&](std::string_view role, std::string_view content) {
    prompt->open(role);
    prompt->body_apart(content);
    prompt->own("<|im_end|>");
  };
  if (!is_system(messages[0])) {
    turn("system", default_system);
    prompt->own("\n");
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    if (i > 0) prompt->own("\n");
    turn(messages[i].role, messages[i].content);
  }
  if (!generate) return;
  prompt->own("\n");
  prompt->open("assistant");
}

void render_chatml(const std::vector<ChatMessage>& messages, const std::string& default_system, bool open_end,
                   bool generate, Prompt* prompt) {
  auto begin_turn = [&](std::string_view role, std::string_view content) {
    prompt->open(role);
    prompt->body(content);
  };
  if (!default_system.empty() && !is_system(messages[0])) {
    begin_turn("system", default_system);
    prompt->close();
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    begin_turn(messages[i].role, messages[i].content);
    const bool last = i + 1 == messages.size();
    if (!open_end || !last || generate) prompt->close();
  }
  if (generate && !(open_end && messages.back().role == "assistant")) prompt->open("assistant");
}

// The system turn of Qwen2.5 and Qwen3, tools included.
void render_system(const ChatMessage& first, std::string_view default_system, const std::vector<std::string>& tools,
                   bool doubled_braces, Prompt* prompt) {
  const bool given = is_system(first);
  if (tools.empty() && !given && default_system.empty()) return;
  prompt->open("system");
  if (given) {
    prompt->body(first.content);
  } else {
    prompt->own(default_system);
  }
  if (!tools.empty()) {
    if (given || !default_system.empty()) prompt->own("\n\n");
    prompt->own(kToolsIntroduction);
    for (const std::string& tool : tools) {
      prompt->own("\n");
      prompt->body(tool);
    }
    prompt->own(kCallsIntroduction);
    prompt->own(doubled_braces ? "{" : "");
    prompt->own(kCallExample);
    prompt->own(doubled_braces ? "}" : "");
    prompt->own("\n</tool_call>");
  }
  prompt->close();
}

void render_call(const ToolCall& call, const std::string& arguments, Prompt* prompt) {
  prompt->own("<tool_call>\n{\"name\": \"");
  prompt->body(call.name);
  prompt->own("\", \"arguments\": ");
  prompt->body(arguments);
  prompt->own("}\n</tool_call>");
}

// Results of tools that follow each other share one turn of the user.
void render_tool_result(const std::vector<ChatMessage>& messages, size_t i, Prompt* prompt) {
  if (i == 0 || !is_tool(messages, i - 1)) prompt->own("<|im_start|>user");
  prompt->own("\n<tool_response>\n");
  prompt->body(messages[i].content);
  prompt->own("\n</tool_response>");
  if (!is_tool(messages, i + 1)) prompt->close();
}

void render_turn(const ChatMessage& message, Prompt* prompt) {
  prompt->open(message.role);
  prompt->body(message.content);
  prompt->close();
}

void render_qwen2_5(const std::vector<ChatMessage>& messages, const Spelt& spelt, Prompt* prompt) {
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (message.role == "tool") {
      render_tool_result(messages, i, prompt);
    } else if (message.tool_calls.empty()) {
      if (i > 0 || !is_system(message)) render_turn(message, prompt);
    } else {
      prompt->own("<|im_start|>assistant");
      if (!message.content.empty()) {
        prompt->own("\n");
        prompt->body(message.content);
      }
      for (size_t c = 0; c < message.tool_calls.size(); ++c) {
        prompt->own("\n");
        render_call(message.tool_calls[c], spelt.arguments[i][c], prompt);
      }
      prompt->close();
    }
  }
}

// The last message of a user that is not a tool's result in disguise; thoughts before it are left out.
size_t last_query(const std::vector<ChatMessage>& messages) {
  for (size_t i = messages.size(); i-- > 0;) {
    const std::string& content = messages[i].content;
    const bool disguised = content.starts_with("<tool_response>") && content.ends_with("</tool_response>");
    if (messages[i].role == "user" && !disguised) return i;
  }
  return messages.size() - 1;
}

// What the assistant thought and what it said; a client may have left both in the content, as generated.
std::pair<std::string_view, std::string_view> split_thought(const ChatMessage& message) {
  constexpr std::string_view kOpen = "<think>", kClose = "</think>";
  const std::string_view content = message.content;
  if (message.reasoning_content) return {*message.reasoning_content, content};
  const size_t first_close = content.find(kClose);
  if (first_close == std::string_view::npos) return {{}, content};
  std::string_view thought = strip_newlines(content.substr(0, first_close), false, true);
  if (const size_t open = thought.rfind(kOpen); open != std::string_view::npos) {
    thought.remove_prefix(open + kOpen.size());
  }
  const std::string_view said = content.substr(content.rfind(kClose) + kClose.size());
  return {strip_newlines(thought, true, false), strip_newlines(said, true, false)};
}

void render_qwen3(const std::vector<ChatMessage>& messages, const Spelt& spelt, Prompt* prompt) {
  const size_t query = last_query(messages);
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (message.role == "tool") {
      render_tool_result(messages, i, prompt);
      continue;
    }
    if (message.role != "assistant") {
      if (i > 0 || !is_system(message)) render_turn(message, prompt);
      continue;
    }
    const auto [thought, said] = split_thought(message);
    prompt->open("assistant");
    if (i > query && (i + 1 == messages.size() || !thought.empty())) {
      prompt->own("<think>\n");
      prompt->body(strip_newlines(thought, true, true));
      prompt->own("\n</think>\n\n");
      prompt->body(strip_newlines(said, true, false));
    } else {
      prompt->body(said);
    }
    for (size_t c = 0; c < message.tool_calls.size(); ++c) {
      if (c > 0 || !said.empty()) prompt->own("\n");
      render_call(message.tool_calls[c], spelt.arguments[i][c], prompt);
    }
    prompt->close();
  }
}

}  // namespace

Result<std::vector<PromptPart>> render_chat(ChatFormat format, const std::string& default_system,
                                            const std::vector<ChatMessage>& messages, const ChatOptions& options) {
  const bool qwen3 = format == ChatFormat::qwen3 || format == ChatFormat::qwen3_nonthinking;
  const bool qwen2_5 = format == ChatFormat::qwen2_5 || format == ChatFormat::qwen2_5_braces;
  if (auto ok = check(messages, options, qwen3 || qwen2_5); !ok) return tl::unexpected(ok.error());
  auto spelt = spell(messages, options);
  if (!spelt) return tl::unexpected(spelt.error());
  Prompt prompt;
  const bool generate = options.add_generation_prompt;
  if (format == ChatFormat::qwen) {
    render_qwen(messages, default_system, generate, &prompt);
    return prompt.take();
  }
  if (!qwen3 && !qwen2_5) {
    render_chatml(messages, default_system, format == ChatFormat::chatml_open_end, generate, &prompt);
    return prompt.take();
  }
  render_system(messages[0], qwen3 ? std::string_view() : default_system, spelt->tools,
                format == ChatFormat::qwen2_5_braces, &prompt);
  if (qwen2_5) {
    render_qwen2_5(messages, *spelt, &prompt);
  } else {
    render_qwen3(messages, *spelt, &prompt);
  }
  if (generate) {
    prompt.open("assistant");
    if (format == ChatFormat::qwen3_nonthinking || (qwen3 && !options.enable_thinking)) {
      prompt.own("<think>\n\n</think>\n\n");
    }
  }
  return prompt.take();
}

}  // namespace lorikeet::model
