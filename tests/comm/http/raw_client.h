// A client that sends what it is told to, byte for byte, over loopback; for what no library would send.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lorikeet::tests {

class RawClient {
 public:
  explicit RawClient(uint16_t port, int receive_buffer = 0);  // the kernel's buffer in bytes; 0: its default
  ~RawClient();
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  bool send(std::string_view bytes);  // all of them; false: the server has ended the connection
  void end_sending();                 // the server sees the end of what was sent
  void reset();                       // ends the connection without a farewell

  // Reads until everything that came holds `text`; gives it all, also where the connection ended or 30 s passed before.
  const std::string& read_until(std::string_view text);
  const std::string& read_to_end();  // until the server ends the connection
  bool ended() const { return ended_; }
  void forget() { received_.clear(); }

 private:
  bool read_some();

  int fd_ = -1;
  bool ended_ = false;
  std::string received_;
};

// "GET path HTTP/1.1" with what every request needs.
std::string get(std::string_view path);
std::string post(std::string_view path, std::string_view body);

// The body of an answer that was sent whole; the pieces of a chunked one put together.
std::string body_of(std::string_view answer);

}  // namespace lorikeet::tests
