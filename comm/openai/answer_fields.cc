#include "comm/openai/answer_fields.h"

#include <fmt/format.h>

#include <limits>
#include <utility>

#include "comm/client/json_order.h"

namespace lorikeet::comm {
namespace {

using nlohmann::json;

std::string text_of(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::optional<JsonText> read_object(BodyReader& body, const char* name) {
  const json& given = body.value(name);
  if (given.is_null()) return std::nullopt;
  if (given.is_object()) return JsonText{text_of(given)};
  body.refuse(name, fmt::format("{} must be an object, not {}", name, json_type_name(given)));
  return std::nullopt;
}

// vLLM's older names for the members of structured_outputs.
std::optional<JsonText> read_guided(BodyReader& body) {
  constexpr std::pair<const char*, const char*> kGuided[] = {
      {"guided_json", "json"}, {"guided_regex", "regex"}, {"guided_choice", "choice"}, {"guided_grammar", "grammar"}};
  std::optional<JsonText> outputs;
  for (const auto& [name, member] : kGuided) {
    const json& given = body.value(name);
    if (given.is_null()) continue;
    if (outputs) body.refuse(name, fmt::format("{} and another guided_* exclude each other", name));
    std::string value(written_member(body.written(), name));
    outputs = JsonText{fmt::format("{{\"{}\": {}}}", member, value.empty() ? text_of(given) : std::move(value))};
  }
  body.ignore({"guided_decoding_backend"});
  body.refuse_unless_neutral("guided_whitespace_pattern");
  return outputs;
}

}  // namespace

void read_format_fields(BodyReader& body, GenerateRequest& to) {
  to.response_format = read_object(body, "response_format");
  to.structured_outputs = read_object(body, "structured_outputs");
  if (body.ok()) keep_written_order(body.written(), to);
  auto guided = read_guided(body);
  if (guided && to.structured_outputs) {
    body.refuse("structured_outputs", "structured_outputs and guided_* exclude each other");
  } else if (guided) {
    to.structured_outputs = std::move(guided);
  }
}

void read_tool_fields(BodyReader& body, GenerateRequest& to) {
  const json& choice = body.value("tool_choice");
  if (choice.is_string() || choice.is_object()) {
    to.tool_choice = JsonText{text_of(choice)};
  } else if (!choice.is_null()) {
    body.refuse("tool_choice",
                fmt::format("tool_choice must be a string or an object, not {}", json_type_name(choice)));
  }
  if (!body.value("parallel_tool_calls").is_null()) to.parallel_tool_calls = body.boolean("parallel_tool_calls");
  to.reasoning_effort = body.text("reasoning_effort");
  for (const char* name : {"thinking_budget", "thinking_token_budget"}) {
    if (const auto budget = body.integer(name, 0, std::numeric_limits<int32_t>::max())) {
      to.thinking_budget = static_cast<int32_t>(*budget);
    }
  }
  to.include_reasoning = body.boolean("include_reasoning", true);
}

}  // namespace lorikeet::comm
