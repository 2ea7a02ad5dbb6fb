// The bodies and answers of the routes that change which adapters are served: vLLM's /v1/load_lora_adapter and
// /v1/unload_lora_adapter, and /v1/adapters, which is ours.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "comm/client/client_messages.h"
#include "comm/openai/openai_error.h"

namespace lorikeet::comm {

// {"lora_name", "lora_path", "load_inplace"} and {"lora_name", "lora_int_id"}, of which the last is vLLM's own number
// of an adapter and means nothing here. The requests have no id yet.
tl::expected<AdapterRequest, OpenAiError> parse_load_adapter(std::string_view body);
tl::expected<AdapterRequest, OpenAiError> parse_unload_adapter(std::string_view body);

// The names that their bodies may have.
std::set<std::string, std::less<>> fields_of_load_adapter();
std::set<std::string, std::less<>> fields_of_unload_adapter();

// pin, unpin or warm, from the path: an empty body or an empty object.
tl::expected<AdapterRequest, OpenAiError> parse_adapter_action(std::string action, std::string name,
                                                               std::string_view body);

// Why a change was refused; load: of /v1/load_lora_adapter, whose status is 400 as in vLLM where the adapter cannot be served.
// The field of the body that is wrong is named as these bodies have it.
OpenAiError adapter_error_of(const Failure& failure, bool load);

// What vLLM answers to a body without its texts.
inline constexpr const char* kNameOrPathMissing = "Both 'lora_name' and 'lora_path' must be provided.";
inline constexpr const char* kNameMissing = "'lora_name' needs to be provided to unload a LoRA adapter.";

// {"message": ...}: of pin, unpin and warm.
std::string adapter_message(const std::string& message);

}  // namespace lorikeet::comm
