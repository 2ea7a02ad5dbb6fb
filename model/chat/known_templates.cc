#include "model/chat/known_templates.h"

#include <algorithm>
#include <array>

namespace lorikeet::model {
namespace {

// Turns and nothing else.
constexpr std::string_view kChatml =
    R"JINJA({%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
)JINJA";

// A system turn for conversations without one, in front.
std::string with_system(std::string_view prompt, std::string_view rest) {
  return "{%- if messages[0].role != 'system' -%}{{- '<|im_start|>system\\n" + std::string(prompt) +
         "<|im_end|>\\n' -}}{%- endif -%}" + std::string(rest);
}

// Qwen v1 puts its newlines between turns.
constexpr std::string_view kQwen =
    R"JINJA({%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\n' -}}{{- message.content -}}{{- '<|im_end|>' -}}
    {%- if not loop.last or add_generation_prompt -%}{{- '\n' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
)JINJA";

// How Qwen2.5 and Qwen3 show tools, calls and results.
constexpr std::string_view kTools =
    R"JINJA({%- macro introduce_tools() -%}
    {{- "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>" -}}
    {%- for tool in tools -%}
        {{- '\n' -}}{{- tool | tojson -}}
    {%- endfor -%}
    {{- '\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>' -}}
{%- endmacro -%}
{%- macro show_call(call) -%}
    {%- set function = call.function if call.function else call -%}
    {{- '<tool_call>\n{"name": "' -}}{{- function.name -}}{{- '", "arguments": ' -}}
    {{- function.arguments if function.arguments is string else function.arguments | tojson -}}
    {{- '}\n</tool_call>' -}}
{%- endmacro -%}
{%- macro show_result(index) -%}
    {%- if index == 0 or messages[index - 1].role != 'tool' -%}
        {{- '<|im_start|>user' -}}
    {%- endif -%}
    {{- '\n<tool_response>\n' -}}{{- messages[index].content -}}{{- '\n</tool_response>' -}}
    {%- if index + 1 == messages | length or messages[index + 1].role != 'tool' -%}
        {{- '<|im_end|>\n' -}}
    {%- endif -%}
{%- endmacro -%}
)JINJA";

constexpr std::string_view kQwen25 =
    R"JINJA({%- set given = messages[0].role == 'system' -%}
{%- set system = messages[0].content if given else 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' -%}
{{- '<|im_start|>system\n' -}}{{- system -}}
{%- if tools -%}
    {{- '\n\n' -}}{{- introduce_tools() -}}
{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- for message in messages -%}
    {%- if message.role == 'tool' -%}
        {{- show_result(loop.index0) -}}
    {%- elif message.role == 'assistant' and message.tool_calls -%}
        {{- '<|im_start|>assistant' -}}
        {%- if message.content -%}
            {{- '\n' -}}{{- message.content -}}
        {%- endif -%}
        {%- for call in message.tool_calls -%}
            {{- '\n' -}}{{- show_call(call) -}}
        {%- endfor -%}
        {{- '<|im_end|>\n' -}}
    {%- elif not (loop.first and given) -%}
        {{- '<|im_start|>' + message.role + '\n' -}}{{- message.content -}}{{- '<|im_end|>\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
)JINJA";

constexpr std::string_view kQwen3 =
    R"JINJA({%- set given = messages[0].role == 'system' -%}
{%- if tools or given -%}
    {{- '<|im_start|>system\n' -}}
    {%- if given -%}
        {{- messages[0].content -}}{{- '\n\n' if tools else '' -}}
    {%- endif -%}
    {{- introduce_tools() if tools else '' -}}{{- '<|im_end|>\n' -}}
{%- endif -%}
{%- set query = namespace(last=messages | length - 1) -%}
{%- for message in messages -%}
    {%- if message.role == 'user' and not (message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) -%}
        {%- set query.last = loop.index0 -%}
    {%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
    {%- if message.role == 'tool' -%}
        {{- show_result(loop.index0) -}}
    {%- elif message.role == 'assistant' -%}
        {%- set said = message.content if message.content is string else '' -%}
        {%- set thought = '' -%}
        {%- if message.reasoning_content is string -%}
            {%- set thought = message.reasoning_content -%}
        {%- elif '</think>' in said -%}
            {%- set thought = said.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') -%}
            {%- set said = said.split('</think>')[-1].lstrip('\n') -%}
        {%- endif -%}
        {{- '<|im_start|>assistant\n' -}}
        {%- if loop.index0 > query.last and (loop.last or thought) -%}
            {{- '<think>\n' -}}{{- thought.strip('\n') -}}{{- '\n</think>\n\n' -}}
            {%- set said = said.lstrip('\n') -%}
            {{- said -}}
        {%- else -%}
            {{- said -}}
        {%- endif -%}
        {%- for call in message.tool_calls or [] -%}
            {{- '\n' if not loop.first or said else '' -}}{{- show_call(call) -}}
        {%- endfor -%}
        {{- '<|im_end|>\n' -}}
    {%- elif not (loop.first and given) -%}
        {{- '<|im_start|>' + message.role + '\n' -}}{{- message.content -}}{{- '<|im_end|>\n' -}}
    {%- endif -%}
{%- endfor -%}
)JINJA";

constexpr std::string_view kQwen3Answer =
    R"JINJA({%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
    {%- if enable_thinking is defined and enable_thinking is false -%}
        {{- '<think>\n\n</think>\n\n' -}}
    {%- endif -%}
{%- endif -%}
)JINJA";

constexpr std::string_view kQwen3AnswerAtOnce =
    R"JINJA({%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n<think>\n\n</think>\n\n' -}}
{%- endif -%}
)JINJA";

std::string joined(std::initializer_list<std::string_view> parts) {
  std::string text;
  for (const std::string_view part : parts) text += part;
  return text;
}

}  // namespace

const std::vector<KnownTemplate>& known_templates() {
  static const std::vector<KnownTemplate> known = {
      {"qwen", with_system("You are a helpful assistant.", kQwen), true},
      {"qwen1.5", with_system("You are a helpful assistant", kChatml)},
      {"qwen2", with_system("You are a helpful assistant.", kChatml)},
      {"qwen2.5", joined({kTools, kQwen25})},
      {"qwen3", joined({kTools, kQwen3, kQwen3Answer})},
      {"qwen3-nonthinking", joined({kTools, kQwen3, kQwen3AnswerAtOnce})},
      {"chatml", std::string(kChatml)},
  };
  return known;
}

const KnownTemplate* find_known_template(std::string_view name) {
  const auto& known = known_templates();
  const auto found = std::find_if(known.begin(), known.end(), [&](const auto& one) { return one.name == name; });
  return found == known.end() ? nullptr : &*found;
}

}  // namespace lorikeet::model
