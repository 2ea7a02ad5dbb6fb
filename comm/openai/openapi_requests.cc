#include <nlohmann/json.hpp>

#include "comm/openai/openapi.h"

namespace lorikeet::comm {
namespace {

using nlohmann::json;

enum Bodies : unsigned { kCompletion = 1, kChat = 2, kBoth = kCompletion | kChat, kTokenize = 4 };

struct Field {
  const char* name;
  unsigned in;  // Bodies
  const char* schema;
};

// Null asks for the default, as does leaving a field out.
constexpr const char* kBoolean = R"({"type": ["boolean", "null"]})";
constexpr const char* kCount = R"({"type": ["integer", "null"], "minimum": 0, "maximum": 2147483647})";
constexpr const char* kPenalty = R"({"type": ["number", "null"], "minimum": -2, "maximum": 2})";
constexpr const char* kShare = R"({"type": ["number", "null"], "minimum": 0, "maximum": 1})";
constexpr const char* kTop = R"({"type": ["integer", "null"], "minimum": 0, "maximum": 20})";
constexpr const char* kChoices = R"({"type": ["integer", "null"], "minimum": 1, "maximum": 128})";
constexpr const char* kTextOrNull = R"({"type": ["string", "null"]})";
constexpr const char* kTokenIds =
    R"({"type": ["array", "null"], "items": {"type": "integer", "minimum": -2147483648, "maximum": 2147483647}})";
constexpr const char* kObject = R"({"type": ["object", "null"]})";
constexpr const char* kObjects = R"({"type": ["array", "null"], "items": {"type": "object"}})";
constexpr const char* kTools = R"({"type": ["array", "null"], "items": {"type": "object", "required": ["function"],
    "properties": {"type": {"const": "function"}, "function": {"type": "object", "required": ["name"],
        "properties": {"name": {"type": "string"}}}}}})";
constexpr const char* kStrings = R"({"anyOf": [{"type": "null"}, {"type": "string", "minLength": 1},
    {"type": "array", "items": {"type": "string", "minLength": 1}}]})";
constexpr const char* kOlderName = R"({"description": "an older name for a member of structured_outputs"})";
constexpr const char* kTaken = R"({"description": "taken and not used"})";
constexpr const char* kNotServed =
    R"({"enum": [null, false, 0, "", [], {}], "description": "not served: only values that ask for nothing"})";

constexpr Field kGenerate[] = {
    {"model", kBoth, R"({"type": ["string", "null"], "description": "the base model, an adapter, or BASE:ADAPTER"})"},
    {"prompt", kCompletion, R"({"anyOf": [{"type": "string"},
        {"type": "array", "minItems": 1, "maxItems": 1024, "items": {"type": "string"}},
        {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 2147483647}},
        {"type": "array", "minItems": 1, "maxItems": 1024, "items":
            {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2147483647}}}]})"},
    {"messages", kChat | kTokenize, R"({"$ref": "#/components/schemas/Messages"})"},
    {"n", kBoth, kChoices},
    {"best_of", kCompletion, R"({"type": ["integer", "null"], "minimum": 1, "maximum": 128, "description": "n"})"},
    {"stream", kBoth, kBoolean},
    {"stream_options", kBoth, R"({"type": ["object", "null"], "properties": {
        "include_usage": {"type": ["boolean", "null"]}, "continuous_usage_stats": {"type": ["boolean", "null"]}}})"},
    {"max_tokens", kBoth, kCount},
    {"max_completion_tokens", kChat, kCount},
    {"temperature", kBoth, R"({"type": ["number", "null"], "minimum": 0, "maximum": 2})"},
    {"top_p", kBoth, R"({"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1})"},
    {"top_k", kBoth, R"({"type": ["integer", "null"], "minimum": -1, "maximum": 2147483647})"},
    {"min_p", kBoth, kShare},
    {"repetition_penalty", kBoth, R"({"type": ["number", "null"], "exclusiveMinimum": 0})"},
    {"presence_penalty", kBoth, kPenalty},
    {"frequency_penalty", kBoth, kPenalty},
    {"seed", kBoth,
     R"({"type": ["integer", "null"], "minimum": -9223372036854775808, "maximum": 9223372036854775807})"},
    {"stop", kBoth, kStrings},
    {"stop_token_ids", kBoth, kTokenIds},
    {"ignore_eos", kBoth, kBoolean},
    {"include_stop_str_in_output", kBoth, kBoolean},
    {"skip_special_tokens", kBoth, kBoolean},
    {"return_token_ids", kBoth, kBoolean},
    {"return_tokens_as_token_ids", kBoth, kBoolean},
    {"add_special_tokens", kBoth | kTokenize, kBoolean},
    {"logit_bias", kBoth, R"({"type": ["object", "null"], "propertyNames": {"pattern": "^[0-9]{1,9}$"},
        "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}})"},
    {"min_tokens", kBoth, kCount},
    {"bad_words", kBoth, kStrings},
    {"allowed_token_ids", kBoth, kTokenIds},
    {"truncate_prompt_tokens", kBoth, R"({"type": ["integer", "null"], "minimum": -1, "maximum": 2147483647})"},
    {"cache_salt", kBoth, kTextOrNull},
    {"timeout", kBoth, R"({"type": ["number", "null"], "exclusiveMinimum": 0, "description": "seconds"})"},
    {"prompt_logprobs", kBoth, kTop},
    {"logprobs", kCompletion, kTop},
    {"logprobs", kChat, kBoolean},
    {"top_logprobs", kChat, kTop},
    {"echo", kCompletion, kBoolean},
    {"tool_choice", kChat, R"({"type": ["string", "object", "null"]})"},
    {"parallel_tool_calls", kChat, kBoolean},
    {"reasoning_effort", kChat, kTextOrNull},
    {"thinking_budget", kChat, kCount},
    {"thinking_token_budget", kChat, kCount},
    {"include_reasoning", kChat, kBoolean},
    {"tools", kChat | kTokenize, kTools},
    {"documents", kChat | kTokenize, kObjects},
    {"chat_template", kChat | kTokenize, kTextOrNull},
    {"chat_template_kwargs", kChat | kTokenize, kObject},
    {"add_generation_prompt", kChat | kTokenize, kBoolean},
    {"continue_final_message", kChat | kTokenize, kBoolean},
    {"response_format", kBoth, kObject},
    {"structured_outputs", kBoth, kObject},
    {"guided_json", kBoth, kOlderName},
    {"guided_regex", kBoth, kOlderName},
    {"guided_choice", kBoth, kOlderName},
    {"guided_grammar", kBoth, kOlderName},
    {"guided_whitespace_pattern", kBoth, kNotServed},
    {"guided_decoding_backend", kBoth, kTaken},

    {"prompt", kTokenize, kTextOrNull},
    {"return_token_strs", kTokenize, kBoolean},
    {"model", kTokenize, kTaken},

    {"user", kBoth, kTaken},
    {"metadata", kBoth, kTaken},
    {"store", kBoth, kTaken},
    {"service_tier", kBoth, kTaken},
    {"safety_identifier", kBoth, kTaken},
    {"prompt_cache_key", kBoth, kTaken},
    {"request_id", kBoth, kTaken},
    {"spaces_between_special_tokens", kBoth, kTaken},
    {"verbosity", kChat, kTaken},

    {"use_beam_search", kBoth, kNotServed},
    {"priority", kBoth, kNotServed},
    {"logits_processors", kBoth, kNotServed},
    {"kv_transfer_params", kBoth, kNotServed},
    {"vllm_xargs", kBoth, kNotServed},
    {"suffix", kCompletion, kNotServed},
    {"prompt_embeds", kCompletion, kNotServed},
    {"functions", kChat, kNotServed},
    {"function_call", kChat, kNotServed},
    {"modalities", kChat,
     R"({"anyOf": [{"enum": [null]}, {"type": "array", "maxItems": 1, "items": {"const": "text"}}]})"},
    {"audio", kChat, kNotServed},
    {"prediction", kChat, kNotServed},
    {"web_search_options", kChat, kNotServed},
    {"echo", kChat, kNotServed},
    {"mm_processor_kwargs", kChat, kNotServed},
};

constexpr const char* kMessages = R"({"type": "array", "minItems": 1, "items": {"type": "object",
    "required": ["role"], "properties": {
        "role": {"type": "string"},
        "content": {"anyOf": [{"type": "null"}, {"type": "string"},
            {"type": "array", "items": {"anyOf": [{"type": "string"},
                {"type": "object", "required": ["type", "text"],
                 "properties": {"type": {"enum": ["text", "input_text", "output_text"]}, "text": {"type": "string"}}},
                {"type": "object", "required": ["type", "refusal"],
                 "properties": {"type": {"const": "refusal"}, "refusal": {"type": "string"}}}]}}]}}}})";

constexpr const char* kDetokenize = R"({"type": "object", "required": ["tokens"],
    "properties": {
        "tokens": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2147483647}},
        "model": {"description": "taken and not used"}}})";

constexpr const char* kLoadAdapter = R"({"type": "object", "required": ["lora_name", "lora_path"], "properties": {
    "lora_name": {"type": "string", "minLength": 1, "maxLength": 256}, "lora_path": {"type": "string", "minLength": 1},
    "load_inplace": {"type": ["boolean", "null"]},
    "is_3d_lora_weight": {"enum": [null, false]}}})";

constexpr const char* kUnloadAdapter = R"({"type": "object", "required": ["lora_name"], "properties": {
    "lora_name": {"type": "string", "minLength": 1, "maxLength": 256},
    "lora_int_id": {"description": "taken and not used"}}})";

json body(Bodies kind, const char* required) {
  json schema = {{"type", "object"}};  // what nobody knows is passed over
  if (*required != '\0') schema["required"].push_back(required);
  for (const Field& field : kGenerate) {
    if ((field.in & kind) != 0) schema["properties"][field.name] = json::parse(field.schema);
  }
  return schema;
}

}  // namespace

json openapi_requests() {
  return {{"CompletionRequest", body(kCompletion, "prompt")},
          {"ChatRequest", body(kChat, "messages")},
          {"Messages", json::parse(kMessages)},
          {"TokenizeRequest", body(kTokenize, "")},
          {"DetokenizeRequest", json::parse(kDetokenize)},
          {"LoadAdapterRequest", json::parse(kLoadAdapter)},
          {"UnloadAdapterRequest", json::parse(kUnloadAdapter)}};
}

}  // namespace lorikeet::comm
