#include "launcher/key_file.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "comm/client/curve_keys.h"

namespace lorikeet::launcher {
namespace {

using actors::AccessOptions;
using actors::CredentialOptions;
using nlohmann::json;

constexpr size_t kMaxKeyBytes = 1024;
constexpr size_t kMaxKeys = 1024;
constexpr size_t kMaxNameBytes = 256;
constexpr size_t kMaxFileBytes = 4 << 20;

Result<std::string> read(const std::string& path) {
  std::ifstream file(path);
  if (!file) return fail("{}: it cannot be read", path);
  std::string text;
  text.resize(kMaxFileBytes + 1);
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxFileBytes) return fail("{}: it has more than {} bytes", path, kMaxFileBytes);
  return text;
}

// The lines of a text without blanks around them; empty ones and those that begin with # are none.
std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    line.erase(0, line.find_first_not_of(" \t\r"));
    line.erase(line.find_last_not_of(" \t\r") + 1);
    if (!line.empty() && line[0] != '#') lines.push_back(std::move(line));
    begin = end + 1;
  }
  return lines;
}

bool is_name(const json& value) {
  return value.is_string() && !value.get_ref<const std::string&>().empty() &&
         value.get_ref<const std::string&>().size() <= kMaxNameBytes;
}

Result<CredentialOptions> credential_of(const json& given) {
  CredentialOptions to;
  to.admin = false;
  if (!given.is_object()) return fail("it must be an object");
  bool has_tenant = false;
  for (const auto& item : given.items()) {
    const json& value = item.value();
    if (item.key() == "key") {
      if (!value.is_string() || !is_api_key(value.get_ref<const std::string&>())) return fail("{}", what_a_key_is());
      to.key = value.get<std::string>();
    } else if (item.key() == "curve_public_key") {
      if (!value.is_string() || !comm::is_curve_key(value.get_ref<const std::string&>())) {
        return fail("curve_public_key must be 40 characters of Z85");
      }
      to.curve_public_key = value.get<std::string>();
    } else if (item.key() == "tenant") {
      if (!is_name(value)) return fail("tenant must be a string of 1 to {} bytes", kMaxNameBytes);
      to.tenant = value.get<std::string>();
      has_tenant = true;
    } else if (item.key() == "adapters") {
      if (!value.is_array() || !std::all_of(value.begin(), value.end(), is_name)) {
        return fail("adapters must be a list of names");
      }
      to.all_adapters = false;
      to.adapters = value.get<std::vector<std::string>>();
    } else if (item.key() == "admin") {
      if (!value.is_boolean()) return fail("admin must be true or false");
      to.admin = value.get<bool>();
    } else {
      return fail("there is no field \"{}\"", item.key().substr(0, 64));
    }
  }
  if (to.key.empty() == to.curve_public_key.empty()) return fail("one of key and curve_public_key is needed");
  if (!has_tenant && to.key.empty()) to.tenant = to.curve_public_key;
  return to;
}

Result<int64_t> limit_of(const json& value, int64_t most) {
  if (!value.is_number_integer() || value < 0 || value > most) return fail("it must be an integer of 0 to {}", most);
  return value.get<int64_t>();
}

Result<actors::TenantOptions> tenant_of(const std::string& name, const json& given) {
  actors::TenantOptions to;
  to.name = name;
  if (!given.is_object()) return fail("it must be an object");
  for (const auto& item : given.items()) {
    if (item.key() == "requests_per_minute") {
      const auto limit = limit_of(item.value(), std::numeric_limits<int32_t>::max());
      if (!limit) return fail("requests_per_minute: {}", limit.error().message);
      to.requests_per_minute = static_cast<int32_t>(*limit);
    } else if (item.key() == "tokens_in_flight") {
      const auto limit = limit_of(item.value(), int64_t{1} << 48);
      if (!limit) return fail("tokens_in_flight: {}", limit.error().message);
      to.tokens_in_flight = *limit;
    } else {
      return fail("there is no field \"{}\"", item.key().substr(0, 64));
    }
  }
  return to;
}

Result<void> read_json(const std::string& path, const std::string& text, AccessOptions& to) {
  const json file = json::parse(text, nullptr, false);
  if (!file.is_object() || !file.value("keys", json()).is_array()) {
    return fail("--api-key-file {}: it is no JSON object with a list of keys", path);
  }
  for (const auto& item : file.items()) {
    if (item.key() != "keys" && item.key() != "tenants") {
      return fail("--api-key-file {}: there is no field \"{}\"", path, item.key().substr(0, 64));
    }
  }
  size_t index = 0;
  for (const json& given : file["keys"]) {
    auto credential = credential_of(given);
    if (!credential) return fail("--api-key-file {}: keys[{}]: {}", path, index, credential.error().message);
    to.credentials.push_back(*std::move(credential));
    ++index;
  }
  const json tenants = file.value("tenants", json::object());
  if (!tenants.is_object()) return fail("--api-key-file {}: tenants must be an object", path);
  for (const auto& item : tenants.items()) {
    auto tenant = tenant_of(item.key(), item.value());
    if (!tenant) return fail("--api-key-file {}: tenant \"{}\": {}", path, item.key(), tenant.error().message);
    to.tenants.push_back(*std::move(tenant));
  }
  return {};
}

}  // namespace

bool is_api_key(std::string_view key) {
  return !key.empty() && key.size() <= kMaxKeyBytes &&
         std::all_of(key.begin(), key.end(), [](char c) { return c > 0x20 && c < 0x7F; });
}

std::string what_a_key_is() {
  return fmt::format("a key is 1 to {} visible ASCII characters", kMaxKeyBytes);
}

Result<void> read_key_file(const std::string& path, AccessOptions& to) {
  const auto text = read(path);
  if (!text) return fail("--api-key-file {}", text.error().message);
  const size_t before = to.credentials.size();
  const size_t first = text->find_first_not_of(" \t\r\n");
  if (first != std::string::npos && (*text)[first] == '{') {
    if (auto ok = read_json(path, *text, to); !ok) return ok;
  } else {
    for (const std::string& line : lines_of(*text)) {
      if (!is_api_key(line)) return fail("--api-key-file {}: {}", path, what_a_key_is());
      to.credentials.emplace_back().key = line;
    }
  }
  if (to.credentials.size() == before) return fail("--api-key-file {}: there is no key in it", path);
  if (to.credentials.size() > kMaxKeys) return fail("--api-key-file {}: more than {} keys", path, kMaxKeys);
  return {};
}

Result<void> read_curve_clients(const std::string& path, AccessOptions& to) {
  const auto text = read(path);
  if (!text) return fail("--zmq-curve-clients {}", text.error().message);
  const size_t before = to.credentials.size();
  for (const std::string& line : lines_of(*text)) {
    const size_t end = std::min(line.find_first_of(" \t"), line.size());
    CredentialOptions credential;
    credential.curve_public_key = line.substr(0, end);
    if (!comm::is_curve_key(credential.curve_public_key)) {
      return fail("--zmq-curve-clients {}: a line is a public key of 40 characters and, if need be, a tenant", path);
    }
    const size_t name = line.find_first_not_of(" \t", end);
    credential.tenant = name == std::string::npos ? credential.curve_public_key : line.substr(name);
    to.credentials.push_back(std::move(credential));
  }
  if (to.credentials.size() == before) return fail("--zmq-curve-clients {}: there is no key in it", path);
  if (to.credentials.size() > kMaxKeys) return fail("--zmq-curve-clients {}: more than {} keys", path, kMaxKeys);
  return {};
}

}  // namespace lorikeet::launcher
