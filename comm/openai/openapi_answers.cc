#include <nlohmann/json.hpp>

#include "comm/openai/openapi.h"

namespace lorikeet::comm {
namespace {

using nlohmann::json;

constexpr const char* kAnswers = R"({
  "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "object",
      "required": ["message", "type", "param", "code"], "properties": {
          "message": {"type": "string"}, "type": {"type": "string"},
          "param": {"type": ["string", "null"]}, "code": {"type": "string"}}}}},

  "Usage": {"type": "object", "required": ["prompt_tokens", "completion_tokens", "total_tokens"], "properties": {
      "prompt_tokens": {"type": "integer", "minimum": 0}, "completion_tokens": {"type": "integer", "minimum": 0},
      "total_tokens": {"type": "integer", "minimum": 0},
      "prompt_tokens_details": {"type": "object", "properties": {"cached_tokens": {"type": "integer", "minimum": 0}}}}},

  "FinishReason": {"type": "string"},

  "Completion": {"type": "object", "required": ["id", "object", "created", "model", "choices", "usage"], "properties": {
      "id": {"type": "string"}, "object": {"const": "text_completion"}, "created": {"type": "integer"},
      "model": {"type": "string"}, "usage": {"$ref": "#/components/schemas/Usage"},
      "choices": {"type": "array", "minItems": 1, "items": {"type": "object",
          "required": ["index", "text", "logprobs", "finish_reason", "stop_reason"], "properties": {
              "index": {"type": "integer", "minimum": 0}, "text": {"type": "string"},
              "logprobs": {"anyOf": [{"type": "null"}, {"type": "object",
                  "required": ["tokens", "token_logprobs", "top_logprobs", "text_offset"], "properties": {
                      "tokens": {"type": "array", "items": {"type": "string"}},
                      "token_logprobs": {"type": "array", "items": {"type": ["number", "null"]}},
                      "top_logprobs": {"type": "array", "items": {"type": ["object", "null"],
                          "additionalProperties": {"type": "number"}}},
                      "text_offset": {"type": "array", "items": {"type": "integer", "minimum": 0}}}}]},
              "finish_reason": {"$ref": "#/components/schemas/FinishReason"},
              "stop_reason": {"type": ["string", "integer", "null"]},
              "token_ids": {"type": "array", "items": {"type": "integer", "minimum": 0}},
              "prompt_token_ids": {"type": "array", "items": {"type": "integer", "minimum": 0}}}}}}},

  "TokenLogprob": {"type": "object", "required": ["token", "logprob", "bytes"], "properties": {
      "token": {"type": "string"}, "logprob": {"type": "number"},
      "bytes": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
      "top_logprobs": {"type": "array", "items": {"$ref": "#/components/schemas/TokenLogprob"}}}},

  "ChatCompletion": {"type": "object", "required": ["id", "object", "created", "model", "choices", "usage"],
    "properties": {
      "id": {"type": "string"}, "object": {"const": "chat.completion"}, "created": {"type": "integer"},
      "model": {"type": "string"}, "usage": {"$ref": "#/components/schemas/Usage"},
      "prompt_token_ids": {"type": "array", "items": {"type": "integer", "minimum": 0}},
      "choices": {"type": "array", "minItems": 1, "items": {"type": "object",
          "required": ["index", "message", "logprobs", "finish_reason", "stop_reason"], "properties": {
              "index": {"type": "integer", "minimum": 0},
              "message": {"type": "object", "required": ["role", "content"], "properties": {
                  "role": {"const": "assistant"}, "content": {"type": ["string", "null"]},
                  "refusal": {"type": "null"}}},
              "logprobs": {"anyOf": [{"type": "null"}, {"type": "object", "required": ["content"], "properties": {
                  "content": {"type": "array", "items": {"$ref": "#/components/schemas/TokenLogprob"}}}}]},
              "finish_reason": {"$ref": "#/components/schemas/FinishReason"},
              "stop_reason": {"type": ["string", "integer", "null"]},
              "token_ids": {"type": "array", "items": {"type": "integer", "minimum": 0}}}}}}},

  "Model": {"type": "object", "required": ["id", "object", "created", "owned_by", "root", "parent"], "properties": {
      "id": {"type": "string"}, "object": {"const": "model"}, "created": {"type": "integer"},
      "owned_by": {"type": "string"}, "root": {"type": "string"}, "parent": {"type": ["string", "null"]},
      "max_model_len": {"type": "integer"}}},
  "ModelList": {"type": "object", "required": ["object", "data"], "properties": {
      "object": {"const": "list"}, "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}}}},

  "Adapters": {"type": "object", "required": ["adapters"], "properties": {"adapters": {"type": "array", "items": {
      "type": "object", "required": ["name", "digest", "tier", "slot", "rank", "bytes", "leases", "claims", "pinned",
          "set_aside", "replaced", "directory", "error"], "properties": {
          "name": {"type": "string"}, "digest": {"type": "string"}, "tier": {"enum": ["slot", "host", "disk"]},
          "slot": {"type": ["integer", "null"]}, "rank": {"type": "integer"}, "bytes": {"type": "integer"},
          "leases": {"type": "integer"}, "claims": {"type": "integer"}, "pinned": {"type": "boolean"},
          "set_aside": {"type": "boolean"}, "replaced": {"type": "boolean"}, "directory": {"type": "string"},
          "error": {"type": ["string", "null"]}}}}}},
  "Message": {"type": "object", "required": ["message"], "properties": {"message": {"type": "string"}}},

  "Tokenized": {"type": "object", "required": ["count", "max_model_len", "tokens", "token_strs"], "properties": {
      "count": {"type": "integer", "minimum": 0}, "max_model_len": {"type": "integer"},
      "tokens": {"type": "array", "items": {"type": "integer", "minimum": 0}},
      "token_strs": {"type": ["array", "null"], "items": {"type": "string"}}}},
  "Detokenized": {"type": "object", "required": ["prompt"], "properties": {"prompt": {"type": "string"}}},

  "Version": {"type": "object", "required": ["version"], "properties": {"version": {"type": "string"}}},
  "Load": {"type": "object", "required": ["server_load"], "properties": {
      "server_load": {"type": "integer", "minimum": 0}}},
  "Reset": {"type": "object", "required": ["success"], "properties": {"success": {"type": "boolean"}}}
})";

}  // namespace

json openapi_answers() {
  return json::parse(kAnswers);
}

}  // namespace lorikeet::comm
