#include "launcher/access_flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <string_view>

#include "comm/client/curve_keys.h"
#include "launcher/key_file.h"

namespace lorikeet::launcher {
namespace {

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host == "[::1]" || host == "lo" || host.rfind("127.", 0) == 0;
}

// ZeroMQ's addresses are tcp://HOST:PORT, ipc:// and inproc://; HOST may be the name of an interface, or *.
bool others_reach(const std::string& zmq_address) {
  constexpr std::string_view kTcp = "tcp://";
  if (zmq_address.rfind(kTcp, 0) != 0) return false;
  return !is_loopback(zmq_address.substr(kTcp.size(), zmq_address.rfind(':') - kTcp.size()));
}

Result<void> check(const actors::AccessOptions& options) {
  std::set<std::string> keys;
  for (const actors::CredentialOptions& credential : options.credentials) {
    const std::string& key = credential.key.empty() ? credential.curve_public_key : credential.key;
    if (!keys.insert(key).second) return fail("a key is given twice; each has one tenant");
  }
  return {};
}

Result<void> set_zmq(const AccessFlags& flags, actors::AccessOptions& to) {
  if (flags.zmq_plain && !flags.zmq_curve_key.empty())
    return fail("--zmq-plain and --zmq-curve-key exclude each other");
  if (!flags.zmq_curve_clients.empty()) {
    if (auto ok = read_curve_clients(flags.zmq_curve_clients, to); !ok) return ok;
  }
  const auto of_curve = [](const actors::CredentialOptions& given) { return given.key.empty(); };
  const bool has_curve = std::any_of(to.credentials.begin(), to.credentials.end(), of_curve);
  const bool has_keys = !std::all_of(to.credentials.begin(), to.credentials.end(), of_curve);
  if (flags.zmq_plain) {
    if (!has_keys) return fail("--zmq-plain needs --api-key or --api-key-file: a key is the password");
    to.zmq_mechanism = "plain";
  }
  if (flags.zmq_curve_key.empty()) {
    return has_curve ? Result<void>(fail("public keys of CURVE need --zmq-curve-key, the server's own pair (`lorikeet "
                                         "keygen` makes one)"))
                     : Result<void>();
  }
  if (!has_curve) {
    return fail("--zmq-curve-key needs the clients' public keys: --zmq-curve-clients, or in --api-key-file");
  }
  auto pair = comm::read_curve_keys(flags.zmq_curve_key);
  if (!pair) return fail("--zmq-curve-key {}", pair.error().message);
  if (pair->secret_key.empty()) return fail("--zmq-curve-key {}: there is no secret key in it", flags.zmq_curve_key);
  to.zmq_mechanism = "curve";
  to.zmq_public_key = pair->public_key;
  to.zmq_secret_key = pair->secret_key;
  return {};
}

}  // namespace

void add_access_flags(CLI::App& app, AccessFlags& flags) {
  const std::string group = "Keys";
  app.add_option("--api-key", flags.api_keys, "Keys that clients must give (or LORIKEET_API_KEY in the environment)")
      ->expected(1, CLI::detail::expected_max_vector_size)
      ->group(group);
  app.add_option("--api-key-file", flags.api_key_file,
                 "File with a key per line, or JSON: keys, their tenants, adapters and limits")
      ->group(group);
  app.add_flag("--allow-unauthenticated", flags.allow_unauthenticated,
               "Let strangers in who reach --host or the ZeroMQ address")
      ->group(group);
  app.add_flag("--zmq-plain", flags.zmq_plain, "ZeroMQ: clients give a key as PLAIN's password, its tenant as the user")
      ->group(group);
  app.add_option("--zmq-curve-key", flags.zmq_curve_key,
                 "ZeroMQ: CURVE with this pair of keys, a file of `lorikeet keygen`")
      ->group(group);
  app.add_option("--zmq-curve-clients", flags.zmq_curve_clients,
                 "ZeroMQ: file with the public key of a client per line, and the name of its tenant")
      ->group(group);
}

Result<actors::AccessOptions> resolve(const AccessFlags& flags, const std::string& http_host,
                                      const std::string& zmq_address) {
  actors::AccessOptions to;
  std::vector<std::string> keys = flags.api_keys;
  if (!flags.api_key_file.empty()) {
    if (auto ok = read_key_file(flags.api_key_file, to); !ok) return tl::unexpected(ok.error());
  }
  for (const char* name : {"LORIKEET_API_KEY", "VLLM_API_KEY"}) {
    const char* key = std::getenv(name);
    if (keys.empty() && to.credentials.empty() && key != nullptr && *key != '\0') keys.emplace_back(key);
  }
  std::vector<actors::CredentialOptions> given;
  for (const std::string& key : keys) {
    if (!is_api_key(key)) return fail("--api-key: {}", what_a_key_is());
    given.emplace_back().key = key;
  }
  to.credentials.insert(to.credentials.begin(), given.begin(), given.end());
  if (auto ok = set_zmq(flags, to); !ok) return tl::unexpected(ok.error());
  if (auto ok = check(to); !ok) return tl::unexpected(ok.error());

  const bool has_keys = std::any_of(to.credentials.begin(), to.credentials.end(),
                                    [](const actors::CredentialOptions& one) { return !one.key.empty(); });
  if (!http_host.empty() && !is_loopback(http_host) && !has_keys && !flags.allow_unauthenticated) {
    return fail("--host {}: others could reach it; give --api-key, or --allow-unauthenticated to let everybody in",
                http_host);
  }
  if (others_reach(zmq_address) && to.zmq_mechanism.empty() && !flags.allow_unauthenticated) {
    return fail(
        "--zmq {}: others could reach it; give --zmq-curve-key or --zmq-plain, or --allow-unauthenticated to let "
        "everybody in",
        zmq_address);
  }
  return to;
}

std::string way_round_keys(const AccessFlags& flags, const actors::AccessOptions& access,
                           const std::string& zmq_address) {
  if (access.credentials.empty() || !access.zmq_mechanism.empty() || flags.allow_unauthenticated) return "";
  return fmt::format(
      "ZeroMQ at {} asks for no key: whoever may connect to it on this host uses all adapters, is an administrator and "
      "has "
      "no tenant's limits; --zmq-plain asks for the same keys as HTTP, --zmq-curve-key for those of CURVE",
      zmq_address);
}

}  // namespace lorikeet::launcher
