#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "kernels/base/console.h"
#include "launcher/commands.h"
#include "launcher/exit_status.h"
#include "launcher/server_flags.h"
#include "launcher/sizes.h"
#include "model/inspect/inspect.h"

namespace lorikeet::launcher {
namespace {

struct InspectFlags {
  std::string directory;
  std::string base;
  bool json = false;
  std::vector<std::string> memories;
};

template <class Report>
Result<int> show(const Report& report, bool json) {
  const std::string text = json ? model::to_json(report).dump(2) + "\n" : model::to_table(report);
  if (auto ok = write_text(stdout, text); !ok) return tl::unexpected(ok.error());
  return report.refusal ? 1 : 0;
}

// What stands in the way of reading `path` as either; empty: nothing.
std::string not_inspectable(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) return fmt::format("{}: there is no such file or directory", path);
  if (!fs::is_directory(status))
    return fmt::format("{}: it is no directory; give the one that holds config.json or adapter_config.json", path);
  const auto holds = [&](const fs::path& dir, const char* name) { return fs::exists(dir / name, error); };
  if (holds(path, "config.json") || holds(path, "adapter_config.json")) return "";
  std::vector<std::string> below;
  for (fs::directory_iterator it(path, error), end; !error && it != end && below.size() < 4; it.increment(error)) {
    std::error_code ignored;
    if (!fs::is_directory(it->path(), ignored)) continue;
    if (holds(it->path(), "config.json") || holds(it->path(), "adapter_config.json"))
      below.push_back(it->path().string());
  }
  std::sort(below.begin(), below.end());
  return fmt::format("{}: neither a checkpoint (config.json) nor an adapter (adapter_config.json){}", path,
                     below.empty() ? "" : fmt::format("; below it are {}", fmt::join(below, ", ")));
}

// 0 when the directory can be served, 1 when it cannot.
Result<int> inspect(const InspectFlags& flags) {
  if (const std::string why = not_inspectable(flags.directory); !why.empty()) return fail("{}", why);
  if (model::kind_of_directory(flags.directory) == model::DirectoryKind::adapter) {
    std::optional<model::ModelConfig> base;
    if (!flags.base.empty()) {
      auto config = model::read_model_config(flags.base);
      if (!config) return tl::unexpected(config.error());
      base = *std::move(config);
    }
    return show(model::inspect_adapter(flags.directory, base), flags.json);
  }
  model::InspectOptions options;
  if (!flags.memories.empty()) options.memories.clear();
  for (const std::string& text : flags.memories) {
    const auto bytes = parse_bytes(text);
    if (!bytes) return fail("--memory: {}", bytes.error().message);
    options.memories.push_back(*bytes);
  }
  return show(model::inspect_checkpoint(flags.directory, options), flags.json);
}

}  // namespace

void add_inspect_command(CLI::App& app, int& exit_status) {
  auto flags = std::make_shared<InspectFlags>();
  CLI::App* command = app.add_subcommand(
      "inspect", "Says what a checkpoint or an adapter is, what it costs, and whether it can be served");
  command->add_option("DIR", flags->directory, "The checkpoint's or the adapter's directory")->required();
  command->add_option("--base", flags->base, "The checkpoint that the adapter would be served over");
  command
      ->add_option("--memory", flags->memories,
                   "Memory of a device, such as 24G, to say how many tokens fit; may be repeated")
      ->allow_extra_args(false);
  command->add_flag("--json", flags->json, "Print the report as JSON");
  command->footer(
      "Examples:\n"
      "  lorikeet inspect /models/qwen --memory 24G --memory 80G\n"
      "  lorikeet inspect /adapters/kjv --base /models/qwen");
  command->callback([flags, &exit_status] { exit_status = exit_status_of("inspect", inspect(*flags)); });
}

}  // namespace lorikeet::launcher
