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

// What whoever has come in may do. Shared by all that are asked with the same key.
struct Grant {
  std::string tenant = "default";
  std::optional<std::set<std::string, std::less<>>> adapters;  // none: all. The base model is everybody's
  bool admin = true;  // may see and change what is of all tenants: status, metrics, adapters, the prefix cache

  bool may_use(const std::optional<std::string>& adapter) const {
    return !adapter || !adapters || adapters->contains(*adapter);
  }
  static std::string refusal_of(const std::string& adapter);  // a sentence, for one that it may not use
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

  // The grant of a number in decimal; one that there is not may do nothing.
  std::shared_ptr<const Grant> numbered(const std::string& number) const;

 private:
  // The time that it takes says nothing about the keys but how many there are.
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
