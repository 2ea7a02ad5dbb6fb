// The digest by which two hosts know that they have the same bytes.
#pragma once

#include <openssl/evp.h>

#include <array>
#include <cstdint>
#include <span>
#include <string>

namespace lorikeet::actors {

// SHA-256, 32 bytes; empty where there is no memory for it.
inline std::string sha256(std::span<const uint8_t> bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest.data(), &size, EVP_sha256(), nullptr) != 1) return "";
  return {reinterpret_cast<const char*>(digest.data()), size};
}

}  // namespace lorikeet::actors
