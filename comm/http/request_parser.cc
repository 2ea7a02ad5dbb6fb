#include "comm/http/request_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <cctype>
#include <optional>

namespace lorikeet::comm {
namespace {

namespace http = boost::beast::http;
using boost::beast::iequals;
using boost::system::error_code;
using BeastString = boost::beast::string_view;

// Any error ends Beast's parser; what it was stands in `refusal`.
const error_code kRefused = make_error_code(http::error::bad_field);

// The end of a chunked body takes five bytes at the least ("0", two CR LF), and Beast asserts that it sees as many.
bool may_begin_last_chunk(std::string_view bytes) {
  return bytes.size() < 5 && bytes.find_first_not_of("0; \t\r\n") == std::string_view::npos;
}

std::string_view view(BeastString text) {
  return {text.data(), text.size()};
}

}  // namespace

struct RequestParser::Impl final : http::basic_parser<true> {
  explicit Impl(const Limits& given) : limits(given) {
    header_limit(static_cast<std::uint32_t>(given.head_bytes));
    body_limit(given.body_bytes);
  }

  void refuse(error_code& error, int status, std::string message) {
    refusal = Refusal{status, std::move(message)};
    error = kRefused;
  }

  void on_request_impl(http::verb, BeastString method, BeastString target, int version, error_code&) override {
    http_1_1 = version >= 11;
    request.method.assign(method.data(), method.size());
    request.target.assign(target.data(), target.size());
  }

  void on_field_impl(http::field field, BeastString name, BeastString value, error_code& error) override {
    if (++fields > limits.headers) {
      return refuse(error, 431, fmt::format("more than {} headers", limits.headers));
    }
    if (head_done) return;  // a trailer
    if (field == http::field::content_length) {
      if (std::exchange(has_length, true) || !std::all_of(value.begin(), value.end(), ::isdigit)) {
        return refuse(error, 400, "the body must have one length, in decimal");
      }
    } else if (field == http::field::transfer_encoding) {
      if (!iequals(value, "chunked")) return refuse(error, 501, "a body may be chunked and nothing else");
    } else if (field == http::field::host) {
      if (std::exchange(has_host, true)) return refuse(error, 400, "there are two Host headers");
    } else if (field == http::field::expect) {
      if (!iequals(value, "100-continue")) return refuse(error, 417, "the server can fulfil 100-continue only");
      wants_continue = true;
    }
    std::string key(view(name));
    std::transform(key.begin(), key.end(), key.begin(), [](unsigned char c) { return std::tolower(c); });
    request.headers.emplace_back(std::move(key), view(value));
  }

  void on_header_impl(error_code& error) override {
    head_done = true;
    if (http_1_1 && !has_host) return refuse(error, 400, "the Host header is missing");
    if (!http_1_1 && chunked()) return refuse(error, 400, "HTTP/1.0 has no chunks");
    wants_continue = wants_continue && http_1_1 && !is_done();
  }

  void on_body_init_impl(const boost::optional<std::uint64_t>&, error_code&) override {}

  std::size_t on_body_impl(BeastString piece, error_code&) override {
    request.body.append(piece.data(), piece.size());
    return piece.size();
  }

  void on_chunk_header_impl(std::uint64_t, BeastString, error_code&) override {}

  std::size_t on_chunk_body_impl(std::uint64_t, BeastString piece, error_code&) override {
    request.body.append(piece.data(), piece.size());
    return piece.size();
  }

  void on_finish_impl(error_code&) override {}
  void on_response_impl(int, BeastString, int, error_code&) override {}

  // What is wrong with a line of the head that Beast would wait for (one that ends without CR) or take (one that goes on
  // with the line before it, which other servers read as a header of its own); null: nothing. `bytes`: not taken yet; what
  // of them was looked at is `scanned`. Beast takes whole lines, so what waits may begin with the empty line that ends the
  // head.
  const char* wrong_line(std::string_view bytes) {
    for (; scanned < bytes.size(); ++scanned) {
      const bool begins_line = scanned == 0 ? head_bytes > 0 : bytes[scanned - 1] == '\n';
      if (begins_line && (bytes[scanned] == ' ' || bytes[scanned] == '\t')) {
        return "a line of the head must not begin with white space";
      }
      if (bytes[scanned] != '\n') continue;
      if (scanned == 0 || bytes[scanned - 1] != '\r') return "a line of the head must end with CR LF";
      const bool empty_line = scanned == 1 ? head_bytes > 0 : scanned >= 3 && bytes.substr(scanned - 3, 2) == "\r\n";
      if (empty_line) return nullptr;  // the end of the head
    }
    return nullptr;
  }

  Refusal sentence(const error_code& error) const {
    if (refusal) return *refusal;
    if (error == http::error::header_limit) {
      return {431, fmt::format("request line and headers take more than {} bytes", limits.head_bytes)};
    }
    if (error == http::error::body_limit) {
      return {413, fmt::format("the body takes more than {} bytes", limits.body_bytes)};
    }
    if (error == http::error::bad_version)
      return {400, "the request line must end with HTTP/1.0 or HTTP/1.1 and CR LF"};
    return {400, fmt::format("this is no HTTP: {}", error.message())};
  }

  const Limits limits;
  HttpRequest request;
  std::optional<Refusal> refusal;
  size_t fields = 0, head_bytes = 0, scanned = 0;
  bool http_1_1 = true;
  bool head_done = false, has_length = false, has_host = false, wants_continue = false;
};

RequestParser::RequestParser(const Limits& limits) : impl_(std::make_unique<Impl>(limits)) {}
RequestParser::~RequestParser() = default;

tl::expected<size_t, RequestParser::Refusal> RequestParser::put(std::string_view bytes) {
  size_t taken = 0;
  while (!impl_->is_done() && taken < bytes.size()) {
    const bool had_head = impl_->is_header_done();
    if (const char* wrong = had_head ? nullptr : impl_->wrong_line(bytes.substr(taken))) {
      return tl::unexpected(Refusal{400, wrong});
    }
    if (had_head && impl_->chunked() && may_begin_last_chunk(bytes.substr(taken))) break;
    error_code error;
    const size_t part = impl_->put({bytes.data() + taken, bytes.size() - taken}, error);
    taken += part;
    if (!had_head) {
      // Beast holds each line to the limit; this holds all of them together to it.
      impl_->head_bytes += part;
      impl_->scanned -= std::min(impl_->scanned, part);
      const size_t waiting = impl_->is_header_done() ? 0 : bytes.size() - taken;
      if (!error && impl_->head_bytes + waiting > impl_->limits.head_bytes) error = http::error::header_limit;
      if (error == http::error::need_more && impl_->head_bytes + waiting >= impl_->limits.head_bytes) {
        error = http::error::header_limit;
      }
    }
    if (error == http::error::need_more) break;
    if (error) return tl::unexpected(impl_->sentence(error));
    if (!had_head && impl_->is_header_done()) break;
  }
  return taken;
}

bool RequestParser::has_head() const {
  return impl_->is_header_done();
}
bool RequestParser::done() const {
  return impl_->is_done();
}
bool RequestParser::keep_alive() const {
  return impl_->keep_alive();
}
bool RequestParser::is_http_1_0() const {
  return !impl_->http_1_1;
}
bool RequestParser::expects_continue() const {
  return impl_->wants_continue;
}
HttpRequest& RequestParser::request() {
  return impl_->request;
}

}  // namespace lorikeet::comm
