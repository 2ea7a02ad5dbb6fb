#include "actors/head/adapter_directories.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <system_error>

namespace lorikeet::actors {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFiles[] = {"adapter_config.json", "adapter_model.safetensors"};

// Whether `path` is `root` or below it; both without links and dots.
bool is_below(const fs::path& root, const fs::path& path) {
  return std::mismatch(root.begin(), root.end(), path.begin(), path.end()).first == root.end();
}

// From the path's text alone. Removes a slash at its end, which would be a component of its own.
fs::path without_dots(const fs::path& path) {
  fs::path plain = path.lexically_normal();
  return plain.has_filename() || plain == plain.root_path() ? plain : plain.parent_path();
}

bool is_link(const fs::path& path) {
  std::error_code ignored;
  return fs::is_symlink(fs::symlink_status(path, ignored));
}

// The path without links and dots, also behind a link that leads nowhere, which weakly_canonical would leave as it is.
fs::path resolved(fs::path path, std::error_code& error) {
  constexpr int kMostLinks = 40;  // as the kernel
  for (int links = 0; links < kMostLinks; ++links) {
    path = fs::weakly_canonical(path, error);
    if (error) return {};
    fs::path before;
    auto part = path.begin();
    for (; part != path.end(); ++part) {
      before /= *part;
      if (is_link(before)) break;
    }
    if (part == path.end()) return path;
    fs::path next = before.parent_path() / fs::read_symlink(before, error);
    if (error) return {};
    for (++part; part != path.end(); ++part) next /= *part;
    path = std::move(next);
  }
  error = std::make_error_code(std::errc::too_many_symbolic_link_levels);
  return {};
}

}  // namespace

std::vector<std::string> AdapterDirectories::present_roots() const {
  std::vector<std::string> present;
  for (const std::string& root : roots_) {
    std::error_code error;
    const fs::path found = fs::canonical(root, error);
    if (!error) present.push_back(found.string());
  }
  return present;
}

bool AdapterDirectories::holds(const fs::path& canonical) const {
  const std::vector<std::string> roots = present_roots();
  return std::any_of(roots.begin(), roots.end(), [&](const std::string& root) { return is_below(root, canonical); });
}

bool AdapterDirectories::names_a_place_below(const fs::path& given) const {
  std::vector<std::string> roots = present_roots();
  std::error_code error;
  for (const std::string& root : roots_) roots.push_back(without_dots(fs::absolute(root, error)).string());
  return std::any_of(roots.begin(), roots.end(), [&](const std::string& root) { return is_below(root, given); });
}

tl::expected<std::string, AdapterRefusal> AdapterDirectories::locate(const std::string& name,
                                                                     const std::string& path) const {
  const auto refuse = [](const char* code, std::string message) {
    return tl::unexpected(AdapterRefusal{code, std::move(message)});
  };
  if (roots_.empty()) return refuse("forbidden", "adapters are loaded from below --lora-dir, and none is given");
  const auto outside = [&] {
    return refuse("forbidden", fmt::format("{} is not below {} (--lora-dir)", path, fmt::join(roots_, ", ")));
  };
  const auto missing = [&](const std::string& what) {
    return refuse("adapter_not_found", fmt::format("Loading lora {} failed: No adapter found for {}", name, what));
  };
  std::error_code error;
  // Dots are removed before the disk is looked at, so that no path goes through other places on its way.
  fs::path given = without_dots(path);
  if (given.is_absolute() && !names_a_place_below(given)) return outside();
  for (size_t i = 0; i < roots_.size() && given.is_relative(); ++i) {
    if (!given.empty() && *given.begin() == "..") return outside();
    const bool last = i + 1 == roots_.size();
    const fs::path below = fs::path(roots_[i]) / given;
    if (!last && !fs::exists(roots_[i], error)) continue;
    const fs::path there = resolved(below, error);  // whether it exists is asked only where it may be looked at
    if (error || !holds(there)) return outside();
    if (last || fs::exists(there, error)) given = below;
  }
  // As far as the path exists, it must lead below a root; else nothing is said about whether the rest exists.
  const fs::path directory = resolved(given, error);
  if (error || !holds(directory)) return outside();
  if (!fs::is_directory(directory, error)) return missing(path);
  for (const char* file : kFiles) {
    const fs::path target = resolved(directory / file, error);
    if (error && !is_link(directory / file)) {  // where a link leads is not revealed
      return refuse("adapter_failed", fmt::format("{}: {}", (fs::path(path) / file).string(), error.message()));
    }
    if (error || !holds(target)) {
      return refuse("forbidden", fmt::format("{} leads to a file that is not below {} (--lora-dir)",
                                             (fs::path(path) / file).string(), fmt::join(roots_, ", ")));
    }
    if (!fs::exists(target, error)) return missing((fs::path(path) / file).string());
  }
  return directory.string();
}

}  // namespace lorikeet::actors
