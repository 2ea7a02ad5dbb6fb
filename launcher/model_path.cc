#include "launcher/model_path.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>

namespace lorikeet::launcher {
namespace {

namespace fs = std::filesystem;

void add_from(const char* variable, const char* below, std::vector<fs::path>& caches) {
  if (const char* value = std::getenv(variable); value != nullptr && *value != '\0') {
    caches.push_back(fs::path(value) / below);
  }
}

// OWNER/NAME, as the hub writes its repositories.
bool is_hub_id(const std::string& model) {
  const size_t slash = model.find('/');
  const auto is_word = [](std::string_view part) {
    return !part.empty() && part.front() != '.' && std::all_of(part.begin(), part.end(), [](unsigned char c) {
      return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
    });
  };
  return slash != std::string::npos && model.find('/', slash + 1) == std::string::npos &&
         is_word(std::string_view(model).substr(0, slash)) && is_word(std::string_view(model).substr(slash + 1));
}

}  // namespace

std::vector<fs::path> hub_caches() {
  std::vector<fs::path> caches;
  add_from("HF_HUB_CACHE", "", caches);
  add_from("HF_HOME", "hub", caches);
  add_from("XDG_CACHE_HOME", "huggingface/hub", caches);
  add_from("HOME", ".cache/huggingface/hub", caches);
  return caches;
}

Result<std::string> find_model(const std::string& model, const std::vector<fs::path>& caches) {
  std::error_code ignored;
  if (fs::is_directory(model, ignored)) return model;
  if (fs::exists(model, ignored)) return fail("{} is not a directory: give the folder that holds config.json", model);
  if (!is_hub_id(model)) return fail("there is no directory {}", model);
  const size_t slash = model.find('/');
  const std::string folder = fmt::format("models--{}--{}", model.substr(0, slash), model.substr(slash + 1));
  for (const fs::path& cache : caches) {
    std::string revision;
    std::ifstream(cache / folder / "refs" / "main") >> revision;
    const fs::path snapshot = cache / folder / "snapshots" / revision;
    if (!revision.empty() && fs::is_directory(snapshot, ignored)) return snapshot.string();
  }
  return fail(
      "there is no directory {}, and the cache of the Hugging Face hub has no such model; download it with "
      "`hf download {}`, or give the folder that it is in",
      model, model);
}

}  // namespace lorikeet::launcher
