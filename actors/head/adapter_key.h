// By what the work for a name (a look at its files, their reading) is told from other work. For names given at start it
// is the name. A name that is loaded at run time has a key of its own each time, so that what is still under way for what
// it led to before is not taken for news of what it leads to now.
#pragma once

#include <cstdint>
#include <string>

namespace lorikeet::actors {

inline constexpr char kAfterName = '\n';  // in no name that can be loaded

inline std::string loaded_key(const std::string& name, uint64_t number) {
  return name + kAfterName + std::to_string(number);
}
inline bool is_loaded_key(const std::string& key) {
  return key.find(kAfterName) != std::string::npos;
}
inline std::string name_in_key(const std::string& key) {
  return key.substr(0, key.find(kAfterName));
}

}  // namespace lorikeet::actors
