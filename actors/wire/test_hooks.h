// ServerOptions::test_hooks taken apart: "hold_adapter_load=kjv,release_file=/tmp/go". Empty outside of tests.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace lorikeet::actors {

class TestHooks {
 public:
  TestHooks() = default;
  explicit TestHooks(std::string_view hooks);

  // The value of a hook: what stands behind its "="; an empty string where it has none; nullopt where it is not set.
  std::optional<std::string> value_of(const std::string& name) const;

 private:
  std::map<std::string, std::string> hooks_;
};

}  // namespace lorikeet::actors
