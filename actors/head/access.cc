#include "actors/head/access.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <cctype>
#include <charconv>

namespace lorikeet::actors {
namespace {

constexpr size_t kMaxKeyBytes = 1024;
constexpr std::string_view kBearer = "bearer ";

std::string digest(std::string_view text) {
  std::string result(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(),
         reinterpret_cast<unsigned char*>(result.data()));
  return result;
}

bool begins_with_bearer(std::string_view text) {
  return text.size() > kBearer.size() && std::equal(kBearer.begin(), kBearer.end(), text.begin(), [](char a, char b) {
           return a == std::tolower(static_cast<unsigned char>(b));
         });
}

}  // namespace

std::string Grant::refusal_of(const std::string& adapter) {
  return "this key may not use the adapter \"" + adapter.substr(0, 200) + "\"";
}

Access::Access(const AccessOptions& options) {
  for (const CredentialOptions& credential : options.credentials) {
    Grant grant;
    grant.tenant = credential.tenant;
    grant.admin = credential.admin;
    if (!credential.all_adapters) grant.adapters.emplace(credential.adapters.begin(), credential.adapters.end());
    if (credential.key.empty()) {
      curve_.emplace(credential.curve_public_key, grants_.size());
    } else {
      keys_.push_back({digest(credential.key), grants_.size()});
    }
    grants_.push_back(std::make_shared<const Grant>(std::move(grant)));
  }
}

std::optional<size_t> Access::of_key(std::string_view key) const {
  if (key.size() > kMaxKeyBytes) return std::nullopt;
  const std::string given = digest(key);
  std::optional<size_t> found;
  for (const Key& known : keys_) {
    if (CRYPTO_memcmp(given.data(), known.digest.data(), given.size()) == 0) found = known.grant;
  }
  return found;
}

std::shared_ptr<const Grant> Access::of_bearer(std::string_view authorization) const {
  static const auto kEverybody = std::make_shared<const Grant>();
  if (!asks_for_keys()) return kEverybody;
  if (!begins_with_bearer(authorization)) return nullptr;
  const auto grant = of_key(authorization.substr(kBearer.size()));
  return grant ? grants_[*grant] : nullptr;
}

std::optional<size_t> Access::of_password(std::string_view user, std::string_view password) const {
  const auto grant = of_key(password);
  return grant && grants_[*grant]->tenant == user ? grant : std::nullopt;
}

std::optional<size_t> Access::of_curve(const std::string& public_key) const {
  const auto found = curve_.find(public_key);
  return found == curve_.end() ? std::nullopt : std::optional<size_t>(found->second);
}

std::shared_ptr<const Grant> Access::numbered(const std::string& number) const {
  static const auto kNothing = std::make_shared<const Grant>(Grant{"", std::set<std::string, std::less<>>(), false});
  size_t index = grants_.size();
  std::from_chars(number.data(), number.data() + number.size(), index);
  return index < grants_.size() ? grants_[index] : kNothing;
}

}  // namespace lorikeet::actors
