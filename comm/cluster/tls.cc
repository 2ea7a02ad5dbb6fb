#include "comm/cluster/tls.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "comm/cluster/keys.h"
#include "comm/cluster/limits.h"

namespace lorikeet::comm {
namespace {

constexpr std::chrono::milliseconds kUnacknowledged{20'000};

std::string reason() {
  char text[256] = "no reason";
  if (const unsigned long error = ERR_peek_last_error(); error != 0) ERR_error_string_n(error, text, sizeof(text));
  ERR_clear_error();
  return text;
}

std::string numeric(const sockaddr_storage& address, socklen_t size) {
  std::array<char, NI_MAXHOST> text{};
  if (getnameinfo(reinterpret_cast<const sockaddr*>(&address), size, text.data(), text.size(), nullptr, 0,
                  NI_NUMERICHOST) != 0) {
    return "";
  }
  const std::string name = text.data();
  return name.rfind("::ffff:", 0) == 0 ? name.substr(7) : name;  // IPv4 at a socket of IPv6
}

}  // namespace

Result<std::shared_ptr<const TlsContext>> TlsContext::load(const std::filesystem::path& directory, ClusterRole role) {
  ERR_clear_error();
  std::shared_ptr<TlsContext> made(new TlsContext(SSL_CTX_new(TLS_method()), role));
  SSL_CTX* context = made->context_.get();
  if (context == nullptr) return fail("no TLS: {}", reason());
  SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(context, 0);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_max_cert_list(context, kMaxFirstWords);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  const auto ca = directory / "ca.pem", certificate = directory / "cert.pem", key = directory / "key.pem";
  for (const auto& file : {ca, certificate, key}) {  // of which OpenSSL says "system lib"
    if (access(file.c_str(), R_OK) != 0) return fail("{}: {}", file.string(), std::strerror(errno));
  }
  if (SSL_CTX_load_verify_locations(context, ca.c_str(), nullptr) != 1) return fail("{}: {}", ca.string(), reason());
  if (SSL_CTX_use_certificate_chain_file(context, certificate.c_str()) != 1) {
    return fail("{}: {}", certificate.string(), reason());
  }
  if (SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM) != 1) {
    return fail("{}: {}", key.string(), reason());
  }
  X509* own = SSL_CTX_get0_certificate(context);
  const char* name = role == ClusterRole::head ? kHeadName : kWorkerName;
  if (X509_check_host(own, name, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, nullptr) != 1) {
    return fail("{}: it is not for a {}", certificate.string(), role == ClusterRole::head ? "head" : "worker");
  }
  if (X509_cmp_current_time(X509_get0_notAfter(own)) < 0) return fail("{}: it has expired", certificate.string());
  return std::shared_ptr<const TlsContext>(std::move(made));
}

Ssl TlsContext::over(int socket) const {
  ERR_clear_error();
  Ssl ssl(SSL_new(context_.get()));
  if (!ssl || SSL_set_fd(ssl.get(), socket) != 1) return nullptr;
  SSL_set_hostflags(ssl.get(), X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  if (SSL_set1_host(ssl.get(), role_ == ClusterRole::head ? kWorkerName : kHeadName) != 1) return nullptr;
  role_ == ClusterRole::head ? SSL_set_accept_state(ssl.get()) : SSL_set_connect_state(ssl.get());
  return ssl;
}

TlsStep tls_step(const Ssl& ssl, int result) {
  if (result > 0) return TlsStep::done;
  switch (SSL_get_error(ssl.get(), result)) {
    case SSL_ERROR_WANT_READ:
      return TlsStep::wants_read;
    case SSL_ERROR_WANT_WRITE:
      return TlsStep::wants_write;
    case SSL_ERROR_ZERO_RETURN:
      return TlsStep::ended;
    default:
      return TlsStep::failed;
  }
}

bool wait_for_socket(int socket, short events, std::chrono::steady_clock::time_point until) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now()).count();
    pollfd state{socket, events, 0};
    const int found = poll(&state, 1, static_cast<int>(std::max<int64_t>(left, 0)));
    if (found > 0) return true;
    if (found == 0 || errno != EINTR) return false;
  }
}

Result<void> finish_tls(const TlsConnection& connection, std::chrono::steady_clock::time_point until,
                        const std::function<int()>& act) {
  for (;;) {
    ERR_clear_error();
    const TlsStep step = tls_step(connection.ssl, act());
    if (step == TlsStep::done) return {};
    if (step == TlsStep::ended) return fail("it has closed the connection");
    if (step == TlsStep::failed) return fail("{}", tls_failure(connection.ssl));
    if (!wait_for_socket(connection.socket.get(), step == TlsStep::wants_read ? POLLIN : POLLOUT, until)) {
      return fail("it took too long");
    }
  }
}

std::string tls_failure(const Ssl& ssl) {
  const long verified = SSL_get_verify_result(ssl.get());
  if (verified != X509_V_OK) {
    ERR_clear_error();
    return std::string("its certificate: ") + X509_verify_cert_error_string(verified);
  }
  if (ERR_peek_last_error() == 0) return "it has closed the connection";
  return reason();
}

void note_ends(TlsConnection& connection) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (getpeername(connection.socket.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0) {
    connection.peer_address = numeric(address, size);
  }
  size = sizeof(address);
  if (getsockname(connection.socket.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0) {
    connection.local_address = numeric(address, size);
  }
  std::array<char, 256> name{};
  if (X509* peer = SSL_get0_peer_certificate(connection.ssl.get())) {
    X509_NAME_get_text_by_NID(X509_get_subject_name(peer), NID_commonName, name.data(), name.size());
  }
  connection.peer_name = name.data();
}

void tune_socket(int socket) {
  const int on = 1;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const auto limit = static_cast<unsigned>(kUnacknowledged.count());
  setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit, sizeof(limit));
}

}  // namespace lorikeet::comm
