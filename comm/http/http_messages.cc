#include "comm/http/http_messages.h"

#include <fmt/format.h>

#include <array>
#include <boost/beast/http/status.hpp>
#include <ctime>

namespace lorikeet::comm {
namespace {

// As RFC 9110 wants it: Sun, 06 Nov 1994 08:49:37 GMT.
std::string date_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::array<char, 64> text{};
  const size_t size = std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return {text.data(), size};
}

void append_value(std::string& text, std::string_view value) {
  for (const char c : value) text += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? ' ' : c;
}

}  // namespace

std::string_view HttpRequest::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return {};
}

std::string_view HttpRequest::path() const {
  std::string_view path = target;
  if (const size_t scheme = path.find("://"); !path.empty() && path[0] != '/' && scheme != std::string_view::npos) {
    const size_t slash = path.find('/', scheme + 3);
    path = slash == std::string_view::npos ? std::string_view("/") : path.substr(slash);
  }
  return path.substr(0, path.find('?'));
}

std::string http_head_text(const HttpAnswer& answer, HttpFraming framing, bool keep_alive) {
  namespace http = boost::beast::http;
  const auto reason = http::obsolete_reason(http::int_to_status(static_cast<unsigned>(answer.status)));
  std::string text = fmt::format("HTTP/1.1 {} {}\r\nDate: {}\r\n", answer.status,
                                 std::string_view(reason.data(), reason.size()), date_now());
  for (const auto& [name, value] : answer.headers) {
    text += name;
    text += ": ";
    append_value(text, value);
    text += "\r\n";
  }
  if (framing == HttpFraming::length) text += fmt::format("Content-Length: {}\r\n", answer.body.size());
  if (framing == HttpFraming::chunked) text += "Transfer-Encoding: chunked\r\n";
  text += keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  return text;
}

std::string http_chunk(std::string_view piece) {
  return fmt::format("{:x}\r\n{}\r\n", piece.size(), piece);
}

}  // namespace lorikeet::comm
