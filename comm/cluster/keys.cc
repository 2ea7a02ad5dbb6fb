#include "comm/cluster/keys.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>

#include "comm/cluster/limits.h"
#include "kernels/base/descriptor.h"

namespace lorikeet::comm {
namespace {

namespace fs = std::filesystem;

constexpr size_t kTokenRandomBytes = 32;
constexpr size_t kMinTokenBytes = 16;
constexpr int kSerialBytes = 16;
constexpr long kSecondsPerDay = 24L * 60 * 60;
constexpr long kClockSkew = 60L * 60;  // hosts' clocks may be behind by so many seconds

template <auto Free>
struct FreeWith {
  template <class T>
  void operator()(T* owned) const {
    Free(owned);
  }
};
using Key = std::unique_ptr<EVP_PKEY, FreeWith<EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, FreeWith<X509_free>>;
using Extension = std::unique_ptr<X509_EXTENSION, FreeWith<X509_EXTENSION_free>>;
using Number = std::unique_ptr<BIGNUM, FreeWith<BN_free>>;
using Bio = std::unique_ptr<BIO, FreeWith<BIO_free_all>>;

struct Authority {
  Key key;
  Certificate certificate;
};

// What a certificate is for.
struct Purpose {
  std::string common_name;
  std::string alternative;  // its DNS name; empty: an authority
  std::string usage;        // extended key usage
};

tl::unexpected<Error> openssl_failed(const char* what) {
  char text[256];
  ERR_error_string_n(ERR_get_error(), text, sizeof(text));
  return fail("{}: {}", what, text);
}

Result<Key> make_key() {
  Key key(EVP_EC_gen("P-256"));
  if (!key) return openssl_failed("no key could be made");
  return key;
}

bool extend(X509* certificate, X509* issuer, int what, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const Extension extension(X509V3_EXT_conf_nid(nullptr, &context, what, value.c_str()));
  return extension && X509_add_ext(certificate, extension.get(), -1) == 1;
}

bool set_random_serial(X509* certificate) {
  std::array<unsigned char, kSerialBytes> bytes{};
  if (RAND_bytes(bytes.data(), kSerialBytes) != 1) return false;
  bytes[0] &= 0x7F;  // it is a positive number
  const Number number(BN_bin2bn(bytes.data(), kSerialBytes, nullptr));
  return number && BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr;
}

// issuer: null where it signs itself.
Result<Certificate> certify(EVP_PKEY* key, const Purpose& purpose, const Authority* issuer, int days) {
  Certificate made(X509_new());
  X509* c = made.get();
  X509* of = issuer ? issuer->certificate.get() : c;
  const bool is_authority = purpose.alternative.empty();
  const long until = days * kSecondsPerDay;
  X509_NAME* name = c ? X509_get_subject_name(c) : nullptr;
  const bool good =
      c && X509_set_version(c, X509_VERSION_3) == 1 && set_random_serial(c) && X509_set_pubkey(c, key) == 1 &&
      X509_gmtime_adj(X509_getm_notBefore(c), std::min(0L, until) - kClockSkew) &&
      X509_gmtime_adj(X509_getm_notAfter(c), until) &&
      X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                                 reinterpret_cast<const unsigned char*>(purpose.common_name.data()),
                                 static_cast<int>(purpose.common_name.size()), -1, 0) == 1 &&
      X509_set_issuer_name(c, X509_get_subject_name(of)) == 1 &&
      extend(c, of, NID_basic_constraints, is_authority ? "critical,CA:TRUE,pathlen:0" : "critical,CA:FALSE") &&
      extend(c, of, NID_key_usage, is_authority ? "critical,keyCertSign" : "critical,digitalSignature") &&
      extend(c, of, NID_subject_key_identifier, "hash") &&
      (is_authority || (extend(c, of, NID_authority_key_identifier, "keyid") &&
                        extend(c, of, NID_subject_alt_name, "DNS:" + purpose.alternative) &&
                        extend(c, of, NID_ext_key_usage, purpose.usage))) &&
      X509_sign(c, issuer ? issuer->key.get() : key, EVP_sha256()) > 0;
  if (!good) return openssl_failed("no certificate could be made");
  return made;
}

Result<void> write_secret(const fs::path& path, std::string_view text) {
  const Descriptor file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file) return fail("{}: {}", path.string(), std::strerror(errno));
  if (write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()) && fsync(file.get()) == 0) {
    return {};
  }
  return fail("{}: {}", path.string(), std::strerror(errno));
}

template <class Write>
Result<void> write_pem(const fs::path& path, Write write) {
  const Bio memory(BIO_new(BIO_s_mem()));
  if (!memory || write(memory.get()) != 1) return openssl_failed("a key could not be written");
  char* text = nullptr;
  const long size = BIO_get_mem_data(memory.get(), &text);
  return write_secret(path, {text, static_cast<size_t>(size)});
}

Result<void> write_certificate(const fs::path& path, X509* certificate) {
  return write_pem(path, [&](BIO* to) { return PEM_write_bio_X509(to, certificate); });
}

Result<void> write_key(const fs::path& path, EVP_PKEY* key) {
  return write_pem(
      path, [&](BIO* to) { return PEM_write_bio_PKCS8PrivateKey(to, key, nullptr, nullptr, 0, nullptr, nullptr); });
}

Result<void> make_directory(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  if (mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) return {};
  return fail("{}: {}", path.string(), std::strerror(errno));
}

// What one host needs, in a directory of its own.
Result<void> write_host(const fs::path& directory, const Authority& authority, const Purpose& purpose,
                        const std::string& token, int days) {
  const auto key = make_key();
  if (!key) return tl::unexpected(key.error());
  const auto certificate = certify(key->get(), purpose, &authority, days);
  if (!certificate) return tl::unexpected(certificate.error());
  if (auto ok = make_directory(directory); !ok) return ok;
  if (auto ok = write_certificate(directory / "cert.pem", certificate->get()); !ok) return ok;
  if (auto ok = write_key(directory / "key.pem", key->get()); !ok) return ok;
  if (auto ok = write_certificate(directory / "ca.pem", authority.certificate.get()); !ok) return ok;
  return write_secret(directory / "token", token + "\n");
}

Purpose worker_named(const std::string& name) {
  return {name, kWorkerName, "clientAuth"};
}

Result<std::string> make_token() {
  std::array<unsigned char, kTokenRandomBytes> bytes{};
  if (RAND_bytes(bytes.data(), bytes.size()) != 1) return openssl_failed("no token could be made");
  std::string text;
  for (const unsigned char byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

Result<Authority> read_authority(const fs::path& directory) {
  Authority read;
  const Bio certificate(BIO_new_file((directory / "ca.pem").c_str(), "r"));
  const Bio key(BIO_new_file((directory / "ca-key.pem").c_str(), "r"));
  if (certificate) read.certificate.reset(PEM_read_bio_X509(certificate.get(), nullptr, nullptr, nullptr));
  if (key) read.key.reset(PEM_read_bio_PrivateKey(key.get(), nullptr, nullptr, nullptr));
  if (read.certificate && read.key && X509_check_private_key(read.certificate.get(), read.key.get()) == 1) return read;
  ERR_clear_error();
  return fail("{}: there is no ca.pem with its ca-key.pem", directory.string());
}

bool is_host_name(const std::string& name) {
  constexpr size_t kMaxName = 63;
  return !name.empty() && name.size() <= kMaxName && name.front() != '.' && name.front() != '-' &&
         std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return std::isalnum(c) != 0 || c == '-' || c == '.' || c == '_'; });
}

}  // namespace

Result<void> make_cluster_keys(const fs::path& directory, int days) {
  std::error_code error;
  if (fs::exists(directory / "ca-key.pem", error)) {
    return fail("{}: there is an authority already; its hosts would not know another one", directory.string());
  }
  Authority authority;
  auto key = make_key();
  if (!key) return tl::unexpected(key.error());
  authority.key = *std::move(key);
  auto certificate = certify(authority.key.get(), {"Lorikeet cluster", "", ""}, nullptr, std::max(days, 1));
  if (!certificate) return tl::unexpected(certificate.error());
  authority.certificate = *std::move(certificate);
  const auto token = make_token();
  if (!token) return tl::unexpected(token.error());

  if (auto ok = make_directory(directory); !ok) return ok;
  if (auto ok = write_key(directory / "ca-key.pem", authority.key.get()); !ok) return ok;
  if (auto ok = write_certificate(directory / "ca.pem", authority.certificate.get()); !ok) return ok;
  if (auto ok = write_host(directory / "head", authority, {"head", kHeadName, "serverAuth"}, *token, days); !ok) {
    return ok;
  }
  return write_host(directory / "worker", authority, worker_named("worker"), *token, days);
}

Result<void> add_worker_keys(const fs::path& directory, const std::string& name, int days) {
  if (!is_host_name(name)) return fail("'{}' is no name of a host", name);
  const auto authority = read_authority(directory);
  if (!authority) return tl::unexpected(authority.error());
  const auto token = read_join_token(directory / "head" / "token");
  if (!token) return tl::unexpected(token.error());
  return write_host(directory / name, *authority, worker_named(name), *token, days);
}

Result<std::string> read_join_token(const fs::path& path) {
  std::ifstream file(path);
  if (!file) return fail("{}: it cannot be read", path.string());
  std::string token(kMaxTokenBytes + 2, '\0');
  file.read(token.data(), static_cast<std::streamsize>(token.size()));
  token.resize(static_cast<size_t>(file.gcount()));
  token.resize(std::min(token.find('\n'), token.size()));
  const bool visible = std::all_of(token.begin(), token.end(), [](char c) { return c > 0x20 && c < 0x7F; });
  if (!visible || token.size() < kMinTokenBytes || token.size() > kMaxTokenBytes) {
    return fail("{}: a join token is {} to {} visible ASCII characters", path.string(), kMinTokenBytes, kMaxTokenBytes);
  }
  return token;
}

}  // namespace lorikeet::comm
