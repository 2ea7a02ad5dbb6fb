#include "tests/comm/http/raw_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>

namespace lorikeet::tests {

RawClient::RawClient(uint16_t port, int receive_buffer) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  if (receive_buffer > 0) setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ended_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0;
}

RawClient::~RawClient() {
  if (fd_ >= 0) close(fd_);
}

bool RawClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

void RawClient::end_sending() {
  shutdown(fd_, SHUT_WR);
}

void RawClient::reset() {
  const linger at_once{1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  close(fd_);
  fd_ = -1;
  ended_ = true;
}

bool RawClient::read_some() {
  pollfd item{fd_, POLLIN, 0};
  if (ended_ || poll(&item, 1, 30'000) <= 0) return false;
  std::array<char, 65536> bytes{};
  const ssize_t got = recv(fd_, bytes.data(), bytes.size(), 0);
  ended_ = got <= 0;
  if (!ended_) received_.append(bytes.data(), static_cast<size_t>(got));
  return !ended_;
}

const std::string& RawClient::read_until(std::string_view text) {
  while (received_.find(text) == std::string::npos && read_some()) {
  }
  return received_;
}

const std::string& RawClient::read_to_end() {
  while (read_some()) {
  }
  return received_;
}

std::string get(std::string_view path) {
  return "GET " + std::string(path) + " HTTP/1.1\r\nHost: test\r\n\r\n";
}

std::string post(std::string_view path, std::string_view body) {
  return "POST " + std::string(path) +
         " HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + std::string(body);
}

std::string body_of(std::string_view answer) {
  const size_t head = answer.find("\r\n\r\n");
  if (head == std::string_view::npos) return "";
  std::string_view rest = answer.substr(head + 4);
  if (answer.substr(0, head).find("Transfer-Encoding: chunked") == std::string_view::npos) return std::string(rest);
  std::string body;
  while (true) {
    const size_t size = std::strtoul(std::string(rest.substr(0, 16)).c_str(), nullptr, 16);
    const size_t line = rest.find("\r\n");
    if (line == std::string_view::npos || size == 0 || rest.size() < line + 4 + size) return body;
    body += rest.substr(line + 2, size);
    rest.remove_prefix(line + 2 + size + 2);
  }
}

}  // namespace lorikeet::tests
