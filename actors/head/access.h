// Who may come in, over either door, and what they may do there. Keys of HTTP and passwords of PLAIN are the same keys;
// a client of CURVE is known by its public key.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "actors/wire/options.h"

namespace lorikeet::actors {

// What a client that has been let in may do. Clients with the same key share one.
struct Grant {
  std::string tenant = "default";
  std::optional<std::set<std::string, std::less<>>> adapters;  // none: all. The base model is open to everybody
  bool admin = true;  // may see and change what belongs to all tenants: status, metrics, adapters, the prefix cache

  bool may_use(const std::optional<std::string>& adapter) const {
    return !adapter || !adapters || adapters->contains(*adapter);
  }
  static std::string refusal_of(const std::string& adapter);  // why it may not use the adapter, as a sentence
};

// Threads: const methods from any.
class Access {
 public:
  explicit Access(const AccessOptions& options);

  bool asks_for_keys() const { return !keys_.empty(); }  // of HTTP's clients

  // Null for a stranger; without keys everybody may do everything.
  std::shared_ptr<const Grant> of_bearer(std::string_view authorization) const;  // "Bearer KEY"

  // The number of a grant; none for a stranger.
  std::optional<size_t> of_password(std::string_view user, std::string_view password) const;
  std::optional<size_t> of_curve(const std::string& public_key) const;  // Z85

  // The grant with this number (in decimal). An unknown number gets one that may do nothing.
  std::shared_ptr<const Grant> numbered(const std::string& number) const;

 private:
  // Takes a time that depends on how many keys there are and on nothing else of them.
  std::optional<size_t> of_key(std::string_view key) const;

  struct Key {
    std::string digest;  // SHA-256
    size_t grant = 0;
  };
  std::vector<std::shared_ptr<const Grant>> grants_;
  std::vector<Key> keys_;
  std::unordered_map<std::string, size_t> curve_;
};

}  // namespace lorikeet::actors
