#include "launcher/answer_flags.h"

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

#include "comm/client/json_order.h"

namespace lorikeet::launcher {
namespace {

using nlohmann::json;

// A flag whose value is an object; an error names it.
void add_object(CLI::App& app, const std::string& flag, std::optional<comm::JsonText>& to, const std::string& help) {
  app.add_option_function<std::string>(
         flag,
         [flag, &to](const std::string& text) {
           if (!json::parse(text, nullptr, false).is_object()) throw CLI::ValidationError(flag, "give a JSON object");
           to = comm::JsonText{text};
         },
         help)
      ->group("Chats and answers");
}

void read_tools(const std::string& path, comm::GenerateRequest& request) {
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const json list = json::parse(text, nullptr, false);
  if (!list.is_array()) throw CLI::ValidationError("--tools", path + " does not hold a JSON list");
  for (const json& tool : list) request.tools.push_back(comm::JsonText{tool.dump()});
  comm::keep_written_order("{\"tools\":" + text + "}", request);
}

}  // namespace

void add_answer_flags(CLI::App& app, comm::GenerateRequest& request) {
  const std::string group = "Chats and answers";
  app.add_option_function<std::string>(
         "--tools", [&request](const std::string& path) { read_tools(path, request); },
         "File with a JSON list of tools")
      ->group(group);
  app.add_option_function<std::string>(
         "--tool-choice",
         [&request](const std::string& choice) {
           request.tool_choice = comm::JsonText{!choice.empty() && choice[0] == '{' ? choice : json(choice).dump()};
         },
         "auto, none, required, or {\"type\": \"function\", \"function\": {\"name\": NAME}}")
      ->group(group);
  add_object(app, "--chat-template-kwargs", request.chat_template_kwargs, "What else the chat template is told (JSON)");
  app.add_option("--reasoning-effort", request.reasoning_effort, "How long to reason at the most")
      ->check(CLI::IsMember({"none", "minimal", "low", "medium", "high", "xhigh", "max"}))
      ->group(group);
  app.add_option("--thinking-budget", request.thinking_budget, "The same in tokens")->group(group);
  add_object(app, "--response-format", request.response_format,
             "{\"type\": \"json_object\"} or {\"type\": \"json_schema\", \"json_schema\": {\"schema\": ...}}");
  add_object(app, "--structured-outputs", request.structured_outputs,
             "{\"json\" | \"regex\" | \"choice\" | \"grammar\" | \"structural_tag\": ...}");
}

}  // namespace lorikeet::launcher
