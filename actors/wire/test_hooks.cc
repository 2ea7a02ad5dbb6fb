#include "actors/wire/test_hooks.h"

#include <algorithm>

namespace lorikeet::actors {

TestHooks::TestHooks(std::string_view hooks) {
  while (!hooks.empty()) {
    const std::string_view hook = hooks.substr(0, hooks.find(','));
    hooks.remove_prefix(std::min(hooks.size(), hook.size() + 1));
    const size_t equals = hook.find('=');
    const std::string_view value = equals == std::string_view::npos ? std::string_view() : hook.substr(equals + 1);
    if (!hook.empty()) hooks_[std::string(hook.substr(0, equals))] = value;
  }
}

std::optional<std::string> TestHooks::value_of(const std::string& name) const {
  const auto it = hooks_.find(name);
  if (it == hooks_.end()) return std::nullopt;
  return it->second;
}

}  // namespace lorikeet::actors
