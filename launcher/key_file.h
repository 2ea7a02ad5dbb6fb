// The files of --api-key-file and --zmq-curve-clients.
//
// A key file is text with a key per line, or JSON:
//   {"keys": [{"key": "sk-1", "tenant": "acme", "adapters": ["moby"]}, {"curve_public_key": "...", "tenant": "acme"},
//             {"key": "sk-2", "admin": true}],
//    "tenants": {"acme": {"requests_per_minute": 600, "tokens_in_flight": 20000}}}
// A key of a line is an administrator's of the tenant "default". comm/openai/README.md explains the fields to people.
#pragma once

#include <string>
#include <string_view>

#include "actors/wire/options.h"
#include "kernels/base/error.h"

namespace lorikeet::launcher {

Result<void> read_key_file(const std::string& path, actors::AccessOptions& to);

// "PUBLIC_KEY" or "PUBLIC_KEY TENANT" per line. Without a name the tenant is called as its key.
Result<void> read_curve_clients(const std::string& path, actors::AccessOptions& to);

bool is_api_key(std::string_view key);
std::string what_a_key_is();  // a sentence

}  // namespace lorikeet::launcher
