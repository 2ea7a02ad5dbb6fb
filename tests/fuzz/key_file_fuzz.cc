// Files of keys: of clients over both doors, of CURVE and of a cluster. The first byte picks the reader.
#include <cstdint>
#include <string_view>

#include "comm/client/curve_keys.h"
#include "comm/cluster/keys.h"
#include "launcher/key_file.h"
#include "tests/fuzz/fuzz_input.h"

namespace {

using namespace lorikeet;
using fuzz::require;
using fuzz::succeeded;

void read_access(Result<void> (*read)(const std::string&, actors::AccessOptions&), const std::string& path) {
  actors::AccessOptions access;
  if (!succeeded(read(path, access))) return;
  require(!access.credentials.empty());
  for (const actors::CredentialOptions& one : access.credentials) {
    require(one.key.empty() != one.curve_public_key.empty());
    require(one.key.empty() ? comm::is_curve_key(one.curve_public_key) : launcher::is_api_key(one.key));
    require(!one.tenant.empty());
  }
  for (const actors::TenantOptions& one : access.tenants) {
    require(one.requests_per_minute >= 0 && one.tokens_in_flight >= 0);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  const std::string path = fuzz::put("keys", &text);
  switch (data[0] % 4) {
    case 0:
      read_access(launcher::read_key_file, path);
      break;
    case 1:
      read_access(launcher::read_curve_clients, path);
      break;
    case 2:
      if (const auto keys = comm::read_curve_keys(path); succeeded(keys)) require(comm::is_curve_key(keys->public_key));
      break;
    default:
      if (const auto token = comm::read_join_token(path); succeeded(token)) require(token->size() >= 16);
  }
  return 0;
}
