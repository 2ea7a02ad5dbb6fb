#include "comm/openai/adapters.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "comm/client/adapter_request.h"
#include "comm/openai/body_reader.h"

namespace lorikeet::comm {
namespace {

const std::string kAnyId = "-";  // the door gives them one

tl::expected<AdapterRequest, OpenAiError> checked(AdapterRequest request) {
  request.id = kAnyId;
  if (auto ok = check_sizes(request); !ok) {
    return tl::unexpected(OpenAiError{400, ok.error().message, std::nullopt, "invalid_request"});
  }
  return request;
}

tl::expected<AdapterRequest, OpenAiError> read_load_adapter(BodyReader& body) {
  AdapterRequest request;
  request.action = "load";
  request.name = body.text("lora_name").value_or("");
  request.path = body.text("lora_path").value_or("");
  request.load_inplace = body.boolean("load_inplace");
  body.refuse_unless_neutral("is_3d_lora_weight");
  if (request.name->empty() || request.path->empty()) {
    body.refuse(request.name->empty() ? "lora_name" : "lora_path", kNameOrPathMissing);
  }
  if (auto error = body.finish()) return tl::unexpected(*std::move(error));
  return checked(std::move(request));
}

tl::expected<AdapterRequest, OpenAiError> read_unload_adapter(BodyReader& body) {
  AdapterRequest request;
  request.action = "unload";
  request.name = body.text("lora_name").value_or("");
  body.ignore({"lora_int_id"});
  if (request.name->empty()) body.refuse("lora_name", kNameMissing);
  if (auto error = body.finish()) return tl::unexpected(*std::move(error));
  return checked(std::move(request));
}

}  // namespace

tl::expected<AdapterRequest, OpenAiError> parse_load_adapter(std::string_view text) {
  BodyReader body(text);
  return read_load_adapter(body);
}

tl::expected<AdapterRequest, OpenAiError> parse_unload_adapter(std::string_view text) {
  BodyReader body(text);
  return read_unload_adapter(body);
}

std::set<std::string, std::less<>> fields_of_load_adapter() {
  BodyReader body("{}");
  static_cast<void>(read_load_adapter(body));
  return body.known();
}

std::set<std::string, std::less<>> fields_of_unload_adapter() {
  BodyReader body("{}");
  static_cast<void>(read_unload_adapter(body));
  return body.known();
}

tl::expected<AdapterRequest, OpenAiError> parse_adapter_action(std::string action, std::string name,
                                                               std::string_view text) {
  if (!text.empty()) {
    BodyReader body(text);
    if (auto error = body.finish()) return tl::unexpected(*std::move(error));
  }
  AdapterRequest request;
  request.action = std::move(action);
  request.name = std::move(name);
  return checked(std::move(request));
}

OpenAiError adapter_error_of(const Failure& failure, bool load) {
  OpenAiError error = error_of(failure);
  if (load && failure.code == "adapter_failed") error.status = 400;  // as vLLM: the request names what cannot be loaded
  error.param = std::nullopt;
  if (failure.code == "unknown_adapter") error.param = "lora_name";
  if (failure.code == "adapter_not_found") error.param = "lora_path";
  return error;
}

std::string adapter_message(const std::string& message) {
  return nlohmann::json{{"message", message}}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace lorikeet::comm
