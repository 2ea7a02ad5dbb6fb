// How a server reads chats and returns their answers; part of ServerOptions.
#pragma once

#include <string>

namespace lorikeet::actors {

struct ChatOptions {
  // Clients may send a template of their own. It runs within bounds, but may take all of them.
  bool trust_request_template = false;
  std::string default_template_kwargs;  // a JSON object: the template's variables that a request does not set
  std::string content_format =
      "auto";  // how it gets a message's content: string, openai (a list of parts), auto: by its
               // source
  bool special_tokens_in_text = false;   // text of clients can contain special tokens, as in transformers
  bool enable_auto_tool_choice = false;  // answers of requests with tools are searched for calls
  std::string tool_call_parser;          // hermes or qwen3_coder: the form of calls
  std::string reasoning_parser;          // qwen3 or deepseek_r1; empty: answers are not searched for reasoning

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("trust_request_template", s.trust_request_template);
    visit("default_template_kwargs", s.default_template_kwargs);
    visit("content_format", s.content_format);
    visit("special_tokens_in_text", s.special_tokens_in_text);
    visit("enable_auto_tool_choice", s.enable_auto_tool_choice);
    visit("tool_call_parser", s.tool_call_parser);
    visit("reasoning_parser", s.reasoning_parser);
  }
};

}  // namespace lorikeet::actors
