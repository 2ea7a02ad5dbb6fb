// The certificates and the join token of a cluster:
//
//   DIR/ca.pem, DIR/ca-key.pem                     the authority; its key stays where it was made
//   DIR/head/{ca.pem, cert.pem, key.pem, token}    what the head needs
//   DIR/worker/{ca.pem, cert.pem, key.pem, token}  what every worker needs, or
//   DIR/NAME/...                                   the same for one host by name
//
// P-256 keys, files with mode 0600. A certificate says what its owner is, head or worker, by a DNS name and by its
// extended key usage, so that neither can pose as the other.
#pragma once

#include <filesystem>
#include <string>

#include "kernels/base/error.h"

namespace lorikeet::comm {

inline constexpr const char* kHeadName = "head.lorikeet.internal";
inline constexpr const char* kWorkerName = "worker.lorikeet.internal";

// Makes all of them. Errors: the directory has an authority already, or cannot be written. `days`: until they expire;
// negative: they have expired, for tests.
Result<void> make_cluster_keys(const std::filesystem::path& directory, int days);

// Makes DIR/NAME for another worker, signed by the authority that is there.
Result<void> add_worker_keys(const std::filesystem::path& directory, const std::string& name, int days);

// The join token of a file: its first line, 16 to kMaxTokenBytes visible ASCII characters.
Result<std::string> read_join_token(const std::filesystem::path& file);

}  // namespace lorikeet::comm
