#include "comm/openai/openapi.h"

#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

namespace lorikeet::comm {
namespace {

using nlohmann::json;

constexpr const char* kJson = "application/json";
constexpr const char* kEvents = "text/event-stream";
constexpr const char* kText = "text/plain";

struct Operation {
  const char* path;
  const char* method;
  const char* summary;
  const char* body;                  // of #/components/schemas; empty: it takes none
  const char* answer;                // of #/components/schemas; empty: see content
  std::vector<const char*> content;  // of the answer; none: it has no body
  std::vector<int> errors;           // beside those that any request can get
  bool open = false;                 // it asks for no key
};

// Whatever is asked: a head or body that cannot be read, no key, one of the wrong sort, too slow, too large, too much.
constexpr int kAnyErrors[] = {400, 408, 413, 431, 503};
constexpr int kKeyErrors[] = {401, 403};

const std::vector<Operation>& operations() {
  static const std::vector<Operation> kOperations = {
      {"/v1/completions",
       "post",
       "Completes texts",
       "CompletionRequest",
       "Completion",
       {kJson, kEvents},
       {404, 409, 415, 422, 429, 500}},
      {"/v1/chat/completions",
       "post",
       "Answers a chat",
       "ChatRequest",
       "ChatCompletion",
       {kJson, kEvents},
       {404, 409, 415, 422, 429, 500}},
      {"/v1/models", "get", "The base model and the adapters", "", "ModelList", {kJson}, {}},
      {"/v1/models/{name}", "get", "One of them", "", "Model", {kJson}, {404}},
      {"/v1/load_lora_adapter",
       "post",
       "Gives a name to an adapter",
       "LoadAdapterRequest",
       "",
       {kText},
       {404, 409, 415, 429, 500}},
      {"/v1/unload_lora_adapter",
       "post",
       "Takes the name of an adapter away",
       "UnloadAdapterRequest",
       "",
       {kText},
       {404, 409, 415, 422, 429, 500}},
      {"/v1/adapters", "get", "The adapters and where they are", "", "Adapters", {kJson}, {500}},
      {"/v1/adapters/{name}/pin", "post", "Keeps it on the ranks", "", "Message", {kJson}, {404, 409, 422, 429, 500}},
      {"/v1/adapters/{name}/unpin", "post", "Keeps it no longer", "", "Message", {kJson}, {404, 409, 422, 429, 500}},
      {"/v1/adapters/{name}/warm", "post", "Brings it to the ranks", "", "Message", {kJson}, {404, 409, 422, 429, 500}},
      {"/tokenize", "post", "The tokens of a text or a chat", "TokenizeRequest", "Tokenized", {kJson}, {404, 415}},
      {"/detokenize", "post", "The text of tokens", "DetokenizeRequest", "Detokenized", {kJson}, {404, 415}},
      {"/health", "get", "Whether every rank serves", "", "", {}, {}, true},
      {"/ping", "get", "The same", "", "", {}, {}, true},
      {"/ping", "post", "The same", "", "", {}, {}, true},
      {"/version", "get", "The server's version", "", "Version", {kJson}, {}},
      {"/load", "get", "Generating requests of this door that have no whole answer", "", "Load", {kJson}, {}},
      {"/reset_prefix_cache",
       "post",
       "Forgets the KV blocks of prefixes that nobody computes",
       "",
       "Reset",
       {kJson},
       {500}},
      {"/metrics", "get", "Prometheus' text format", "", "", {kText}, {500}},
      {"/openapi.json", "get", "This document", "", "", {kJson}, {}},
  };
  return kOperations;
}

json reference(std::string_view schema) {
  return {{"$ref", "#/components/schemas/" + std::string(schema)}};
}

json content_of(const Operation& operation) {
  json content = json::object();
  for (const char* type : operation.content) {
    const bool is_shown = std::string_view(type) == kJson && *operation.answer != '\0';
    content[type]["schema"] = is_shown ? reference(operation.answer) : json::object();
  }
  return content;
}

json error_answer(int status) {
  json answer = {{"description", "An error"}};
  answer["content"][kJson]["schema"] = reference("Error");
  if (status == 429) {
    answer["headers"]["Retry-After"]["schema"] = {{"type", "integer"}, {"minimum", 1}};  // seconds
  }
  return answer;
}

json described(const Operation& operation) {
  json result = {{"summary", operation.summary}};
  json& answers = result["responses"];
  answers["200"]["description"] = "The answer";
  if (!operation.content.empty()) answers["200"]["content"] = content_of(operation);
  for (const int status : kAnyErrors) answers[std::to_string(status)] = error_answer(status);
  for (const int status : operation.errors) answers[std::to_string(status)] = error_answer(status);
  if (operation.open) {
    result["security"] = json::array();
  } else {
    for (const int status : kKeyErrors) answers[std::to_string(status)] = error_answer(status);
  }
  if (*operation.body != '\0') {
    result["requestBody"]["required"] = true;
    result["requestBody"]["content"][kJson]["schema"] = reference(operation.body);
  }
  if (std::string_view(operation.path).find("{name}") != std::string_view::npos) {
    const json schema = {{"type", "string"}, {"minLength", 1}};
    result["parameters"].push_back({{"name", "name"}, {"in", "path"}, {"required", true}, {"schema", schema}});
  }
  return result;
}

// HEAD: the same without a body.
json without_content(json operation) {
  for (auto& [status, answer] : operation["responses"].items()) answer.erase("content");
  return operation;
}

}  // namespace

std::string openapi_document(const std::string& version) {
  json paths;
  for (const Operation& operation : operations()) {
    json& path = paths[operation.path];
    path[operation.method] = described(operation);
    if (std::string_view(operation.method) == "get") path["head"] = without_content(path["get"]);
  }
  json schemas = openapi_requests();
  schemas.update(openapi_answers());
  json document = {{"openapi", "3.1.0"}, {"info", {{"title", "Lorikeet"}, {"version", version}}}};
  document["paths"] = std::move(paths);
  document["security"].push_back({{"key", json::array()}});
  document["components"]["schemas"] = std::move(schemas);
  document["components"]["securitySchemes"]["key"] = {{"type", "http"}, {"scheme", "bearer"}};
  return document.dump();
}

}  // namespace lorikeet::comm
