#include "launcher/zmq_flags.h"

#include <cstdlib>
#include <fstream>
#include <iomanip>
#include <utility>

#include "comm/client/curve_keys.h"
#include "launcher/zmq_address.h"

namespace lorikeet::launcher {
namespace {

// Of a file in ZeroMQ's format, or of one that has the key alone, as `lorikeet keygen` prints it.
Result<std::string> read_public_key(const std::string& path) {
  std::ifstream file(path);
  std::string word, more;
  const auto limit = std::setw(static_cast<int>(comm::kCurveKeyCharacters) + 1);
  if (file >> limit >> word && comm::is_curve_key(word) && !(file >> limit >> more)) return word;
  auto keys = comm::read_curve_keys(path);
  if (!keys) return tl::unexpected(keys.error());
  return std::move(keys->public_key);
}

}  // namespace

Result<comm::ZmqIdentity> identity_of(const ZmqFlags& flags) {
  comm::ZmqIdentity identity;
  if (flags.curve_key.empty() != flags.server_key.empty())
    return fail("--zmq-curve-key and --zmq-server-key go together");
  if (!flags.curve_key.empty()) {
    const auto own = comm::read_curve_keys(flags.curve_key);
    if (!own) return fail("--zmq-curve-key {}", own.error().message);
    if (own->secret_key.empty()) return fail("--zmq-curve-key {}: there is no secret key in it", flags.curve_key);
    identity.public_key = own->public_key;
    identity.secret_key = own->secret_key;
    identity.server_key = flags.server_key;
    if (!comm::is_curve_key(identity.server_key)) {
      auto server = read_public_key(flags.server_key);
      if (!server) return fail("--zmq-server-key {}", server.error().message);
      identity.server_key = *std::move(server);
    }
    return identity;
  }
  if (!flags.plain && flags.api_key.empty()) return identity;
  const char* key = std::getenv("LORIKEET_API_KEY");
  identity.password = !flags.api_key.empty() ? flags.api_key : key != nullptr ? key : "";
  if (identity.password.empty()) return fail("--zmq-plain needs --api-key, or LORIKEET_API_KEY in the environment");
  identity.user = flags.tenant;
  return identity;
}

void add_zmq_flags(CLI::App& app, ZmqFlags& flags) {
  app.add_option("--zmq", flags.address, "Address of the server")->check(zmq_address())->capture_default_str();
  const std::string group = "Keys, where the server asks for them";
  app.add_flag("--zmq-plain", flags.plain, "PLAIN: give a key")->group(group);
  app.add_option("--api-key", flags.api_key,
                 "The key of PLAIN, or of HTTP where a URL is given (or LORIKEET_API_KEY in the environment)")
      ->group(group);
  app.add_option("--tenant", flags.tenant, "PLAIN: whose key it is")->group(group);
  app.add_option("--zmq-curve-key", flags.curve_key, "CURVE: this client's pair, a file of `lorikeet keygen`")
      ->group(group);
  app.add_option("--zmq-server-key", flags.server_key, "CURVE: the server's public key, or a file that holds it")
      ->group(group);
  // What identity_of() finds wrong is of the command line, and said as all of that is.
  app.parse_complete_callback([&flags] {
    if (const auto identity = identity_of(flags); !identity) throw CLI::ValidationError(identity.error().message);
  });
}

}  // namespace lorikeet::launcher
