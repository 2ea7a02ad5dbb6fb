#include "actors/head/answer_rules.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "actors/head/grammar_request.h"
#include "model/grammar/answer_constraint.h"

namespace lorikeet::actors {
namespace {

using nlohmann::json;
using Begin = model::ReasoningSplitter::Begin;
using Thinking = model::AnswerConstraint::Thinking;

struct ToolChoice {
  enum class Kind : uint8_t { none, automatic, required, named } kind = Kind::none;
  std::string name;  // of the tool that is named

  bool must_call() const { return kind == Kind::required || kind == Kind::named; }
};

std::string name_of_tool(const std::string& text) {
  const json tool = json::parse(text, nullptr, false);
  if (!tool.is_object() || !tool.contains("function") || !tool["function"].is_object()) return "";
  const json& function = tool["function"];
  return function.contains("name") && function["name"].is_string() ? function["name"].get<std::string>() : "";
}

Result<ToolChoice> read_tool_choice(const comm::GenerateRequest& request) {
  using Kind = ToolChoice::Kind;
  if (!request.tool_choice) return ToolChoice{request.tools.empty() ? Kind::none : Kind::automatic, ""};
  const json given = json::parse(request.tool_choice->text, nullptr, false);
  ToolChoice choice;
  if (given == "none") return choice;
  if (given == "auto") {
    choice.kind = request.tools.empty() ? Kind::none : Kind::automatic;
    return choice;
  }
  if (request.tools.empty()) return fail("tool_choice: there are no tools to choose from");
  if (given == "required") {
    choice.kind = Kind::required;
    return choice;
  }
  choice.kind = Kind::named;
  choice.name = name_of_tool(request.tool_choice->text);
  if (choice.name.empty()) {
    return fail(
        "tool_choice must be \"none\", \"auto\", \"required\" or {{\"type\": \"function\", \"function\": {{\"name\": "
        "...}}}}");
  }
  const bool known = std::any_of(request.tools.begin(), request.tools.end(),
                                 [&](const comm::JsonText& tool) { return name_of_tool(tool.text) == choice.name; });
  if (!known) return fail("tool_choice: no tool is named \"{}\"", choice.name.substr(0, 80));
  return choice;
}

Begin reasoning_of(const std::string& parser, const std::string& opening) {
  if (parser.empty()) return Begin::answer;
  const auto opened = model::opened_thought(opening);
  if (opened == model::OpenedThought::closed) return Begin::answer;
  return opened == model::OpenedThought::open || parser == "deepseek_r1" ? Begin::open : Begin::may_open;
}

// Tokens of reasoning that an effort stands for; -1: as many as it takes.
Result<int32_t> budget_of(const std::string& effort) {
  constexpr std::pair<const char*, int32_t> kEfforts[] = {
      {"none", 0}, {"minimal", 512}, {"low", 2048}, {"medium", 8192}, {"high", -1}, {"xhigh", -1}, {"max", -1}};
  for (const auto& [name, budget] : kEfforts) {
    if (effort == name) return budget;
  }
  return fail("reasoning_effort must be none, minimal, low, medium, high, xhigh or max");
}

std::vector<int32_t> ids_of(const model::Tokenizer& tokenizer, std::string_view tag) {
  const int32_t id = tokenizer.id_of(tag);
  return id >= 0 ? std::vector<int32_t>{id} : tokenizer.encode(tag, false);
}

Result<void> set_tools(const comm::GenerateRequest& request, const ToolChoice& choice, const ChatOptions& options,
                       model::AnswerParser::Options& parser) {
  if (choice.kind == ToolChoice::Kind::none) return {};
  if (choice.kind == ToolChoice::Kind::automatic &&
      !(options.enable_auto_tool_choice && !options.tool_call_parser.empty())) {
    return fail("tool_choice \"auto\" needs a server with --enable-auto-tool-choice and --tool-call-parser");
  }
  parser.tool_calls =
      options.tool_call_parser == "qwen3_coder" ? model::ToolCallForm::qwen3_coder : model::ToolCallForm::hermes;
  parser.parallel_tool_calls = request.parallel_tool_calls.value_or(true);
  for (const comm::JsonText& tool : request.tools) parser.tools.push_back(tool.text);
  return {};
}

// The grammar that the request gives, or that makes it call a tool.
Result<std::optional<model::GrammarSpec>> wanted_grammar(const comm::GenerateRequest& request, const ToolChoice& choice,
                                                         const ChatOptions& options) {
  auto spec = grammar_of(request);
  if (!spec || !choice.must_call()) return spec;
  if (*spec)
    return fail("tool_choice asks for a call of a tool, which excludes response_format and structured_outputs");
  std::vector<std::string> tools;
  for (const comm::JsonText& tool : request.tools) {
    if (choice.name.empty() || name_of_tool(tool.text) == choice.name) tools.push_back(tool.text);
  }
  const bool one = choice.kind == ToolChoice::Kind::named || !request.parallel_tool_calls.value_or(true);
  auto calls = grammar_of_calls(tools, {options.tool_call_parser, one});
  if (!calls) return tl::unexpected(calls.error());
  return std::optional(*std::move(calls));
}

const char* field_of(const comm::GenerateRequest& request, const ToolChoice& choice) {
  return choice.must_call() ? "tools" : request.structured_outputs ? "structured_outputs" : "response_format";
}

}  // namespace

bool wants_grammar(const comm::GenerateRequest& request) {
  return request.response_format || request.structured_outputs || (request.tool_choice && !request.tools.empty());
}

Result<PreparedAnswer> answer_rules(const comm::GenerateRequest& request, const ChatOptions& options,
                                    const std::string& opening, const model::Tokenizer* tokenizer,
                                    model::GrammarSource* grammars) {
  PreparedAnswer result;
  ToolChoice choice;
  AnswerReading reading;
  if (request.messages) {
    auto read = read_tool_choice(request);
    if (!read) return tl::unexpected(read.error());
    choice = *std::move(read);
    if (auto ok = set_tools(request, choice, options, reading.parser); !ok) return tl::unexpected(ok.error());
    reading.parser.reasoning = reasoning_of(options.reasoning_parser, opening);
    reading.shows_reasoning = request.include_reasoning;
    reading.calls_end_it = choice.kind != ToolChoice::Kind::named;
    const bool plain =
        reading.parser.reasoning == Begin::answer && reading.parser.tool_calls == model::ToolCallForm::none;
    if (!plain) result.reading = reading;
  }
  engine::AnswerRules& rules = result.rules;
  if (request.thinking_budget && (*request.thinking_budget < 0 || options.reasoning_parser.empty())) {
    return *request.thinking_budget < 0 ? fail("thinking_budget is {}, below 0", *request.thinking_budget)
                                        : fail("thinking_budget needs a server with --reasoning-parser");
  }
  if (request.reasoning_effort) {
    const auto budget = budget_of(*request.reasoning_effort);
    if (!budget) return tl::unexpected(budget.error());
    rules.thinking_budget = *budget;
  }
  if (request.thinking_budget) rules.thinking_budget = *request.thinking_budget;
  auto spec = wanted_grammar(request, choice, options);
  if (!spec) return tl::unexpected(spec.error());
  if (*spec) {
    if (tokenizer == nullptr || grammars == nullptr)
      return fail("the checkpoint has no tokenizer, so grammars mean nothing");
    if (auto ok = grammars->compile(**spec); !ok) {
      return fail("{}: {}", field_of(request, choice), ok.error().message);
    }
    rules.grammar_kind = static_cast<int32_t>((*spec)->kind);
    rules.grammar = std::move((*spec)->text);
  }
  const Begin begin = reading.parser.reasoning;
  const bool thinks = tokenizer != nullptr && begin != Begin::answer;
  if (!thinks) rules.thinking_budget = -1;
  if (thinks && (rules.grammar_kind >= 0 || rules.thinking_budget >= 0)) {
    rules.thinking = static_cast<int32_t>(begin == Begin::open ? Thinking::open : Thinking::may);
    rules.opening_tag = ids_of(*tokenizer, "<think>");
    rules.closing_tag = ids_of(*tokenizer, "</think>");
  }
  return result;
}

}  // namespace lorikeet::actors
