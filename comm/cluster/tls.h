// TLS 1.3 between the hosts of a cluster: both sides show a certificate of the cluster's authority, and each checks that
// the other is what it must be, a head or a worker.
//
// OpenSSL writes without MSG_NOSIGNAL: a process with such a connection must ignore SIGPIPE.
#pragma once

#include <openssl/ssl.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "kernels/base/descriptor.h"
#include "kernels/base/error.h"

namespace lorikeet::comm {

struct FreeSsl {
  void operator()(SSL* ssl) const { SSL_free(ssl); }
};
using Ssl = std::unique_ptr<SSL, FreeSsl>;

// A connection whose both ends have been checked. The socket does not block. Threads: one at a time.
struct TlsConnection {
  Descriptor socket;
  Ssl ssl;                    // over the socket
  std::string peer_name;      // the common name of its certificate
  std::string peer_address;   // numeric
  std::string local_address;  // numeric: where the route to the peer leaves this host
};

enum class ClusterRole { head, worker };

// What a host is and knows of its cluster. Threads: any.
class TlsContext {
 public:
  // Reads ca.pem, cert.pem and key.pem of `directory` (comm/cluster/keys.h). Errors name the file.
  static Result<std::shared_ptr<const TlsContext>> load(const std::filesystem::path& directory, ClusterRole role);

  // One end over a connected socket, before the handshake; null where there is no memory for it.
  Ssl over(int socket) const;

 private:
  struct Free {
    void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  };
  TlsContext(SSL_CTX* context, ClusterRole role) : context_(context), role_(role) {}

  std::unique_ptr<SSL_CTX, Free> context_;
  ClusterRole role_;
};

// One step of a handshake, a read or a write that returned `result`, on a socket that does not block.
enum class TlsStep { done, wants_read, wants_write, ended, failed };
TlsStep tls_step(const Ssl& ssl, int result);

// Repeats `act`, one of OpenSSL's calls, until it is done. Errors: it has failed, or it is not done by `until`.
Result<void> finish_tls(const TlsConnection& connection, std::chrono::steady_clock::time_point until,
                        const std::function<int()>& act);

// Waits for events of poll(2); false: none came by `until`.
bool wait_for_socket(int socket, short events, std::chrono::steady_clock::time_point until);

// Why the last step has failed, for people: what is wrong with the peer's certificate, or OpenSSL's reason.
std::string tls_failure(const Ssl& ssl);

// Fills in the names and addresses of a connection whose handshake is done.
void note_ends(TlsConnection& connection);

// Sends small messages at once, and turns a peer that no longer acknowledges anything into an error.
void tune_socket(int socket);

}  // namespace lorikeet::comm
