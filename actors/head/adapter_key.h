// Keys of the work that is done for a name (checking its files, reading them). The key of a name that was given at start
// is the name itself. A name that is loaded at run time gets a new key each time, so that a result for what the name led
// to before is not mistaken for a result for what it leads to now.
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
