// One client's connection: reads its requests one after the other, writes their answers, keeps its time limits.
//
//                           head too late: closed          body too late: 408         whole answer, kept alive
//   handshaking --> resting ------------> head ----> body ------> answering ------------------------> resting
//                                           \           \              \  last answer, or refused
//                                            +-----------+--------------+--------------> lingering --> closed
//
// Lingering: the client can still read the last answer; what it sends is thrown away.
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "comm/http/http_server.h"
#include "comm/http/request_parser.h"
#include "comm/http/transport.h"

namespace lorikeet::comm {

class HttpConnection;

// The server, as its connections see it.
class ConnectionHost {
 public:
  virtual ~ConnectionHost() = default;
  virtual const HttpServerOptions& options() const = 0;
  virtual const HttpCallbacks& callbacks() const = 0;
  virtual ExchangeId begin_exchange(HttpConnection& connection) = 0;
  virtual void end_exchange(ExchangeId exchange) = 0;
  virtual bool take_body_bytes(size_t bytes) = 0;  // false: too many bodies are in memory
  virtual void give_body_bytes(size_t bytes) = 0;
  virtual void rests(HttpConnection& connection, bool resting) = 0;
  virtual void closed(HttpConnection& connection) = 0;  // may destroy it
};

// Thread: the server's. Owned by the server and by what is under way.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  using Clock = std::chrono::steady_clock;

  HttpConnection(ConnectionHost& host, std::unique_ptr<Transport> transport, std::string peer);

  void start();
  void refuse_busy();  // instead of start: there are too many connections

  // The answer to the request that was given to the owner.
  void answer(HttpAnswer answer);
  void begin(HttpAnswer head);
  void write(std::string_view piece);
  void end();

  void check_deadline(Clock::time_point now);
  void stop();   // closes as soon as what was answered has left
  void close();  // at once
  bool is_closed() const { return state_ == State::closed; }

 private:
  enum class State { handshaking, resting, head, body, answering, lingering, closed };

  void enter(State state, std::chrono::milliseconds deadline);
  void read();
  void parse();
  void head_came();
  void request_came();
  bool reserve_body();
  void refuse(int status, const std::string& sentence);
  void send_whole(HttpAnswer answer, bool keep_alive);
  void push(std::string bytes);
  void flush();
  void answered();
  void next_request();
  void linger();
  void release();

  ConnectionHost& host_;
  const std::unique_ptr<Transport> transport_;
  const std::string peer_;
  State state_ = State::handshaking;
  Clock::time_point deadline_;

  std::string in_;        // has come and is not parsed
  std::string received_;  // where the read under way puts its bytes
  bool reading_ = false;
  std::optional<RequestParser> parser_;
  size_t body_bytes_ = 0;  // taken from the host for this request
  bool first_ = true;      // no request has come yet

  ExchangeId exchange_ = 0;    // 0: none
  bool keep_alive_ = true;     // after the present answer
  bool head_request_ = false;  // HEAD: no body in the answer
  HttpFraming framing_ = HttpFraming::length;
  bool begun_ = false;  // an answer in pieces
  bool whole_ = false;  // the answer has been given to the end
  bool stopping_ = false;

  std::deque<std::string> out_;
  size_t out_sent_ = 0;   // of out_.front()
  size_t out_bytes_ = 0;  // in out_
  bool writing_ = false;
  Clock::time_point wrote_;  // when the client last took something, or something began to wait
};

}  // namespace lorikeet::comm
