// From where clients may load adapters: only below a --lora-dir, whatever links lead there or away.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <tl/expected.hpp>
#include <vector>

namespace lorikeet::actors {

// Why a change of the served adapters is refused; `code` is that of comm::Failure.
struct AdapterRefusal {
  std::string code, message;
};

// Threads: const methods from any. They block on the disk.
class AdapterDirectories {
 public:
  AdapterDirectories() = default;  // none: every path is refused
  explicit AdapterDirectories(std::vector<std::string> roots) : roots_(std::move(roots)) {}

  // The directory that a client's path means, without links: a relative path is looked for below each root in turn.
  // Refuses what is not there (adapter_not_found) or cannot be read (adapter_failed), and paths or files of the adapter that
  // lead out of all roots (forbidden). A path outside gets the same answer whether it exists or not: "." and ".." are
  // resolved in the text, and a path that is then not below a root, as given or without its links, is never looked at.
  tl::expected<std::string, AdapterRefusal> locate(const std::string& name, const std::string& path) const;

  // Without links, as they are now; those that are there.
  std::vector<std::string> present_roots() const;

 private:
  bool holds(const std::filesystem::path& canonical) const;
  bool names_a_place_below(const std::filesystem::path& given) const;

  std::vector<std::string> roots_;
};

}  // namespace lorikeet::actors
