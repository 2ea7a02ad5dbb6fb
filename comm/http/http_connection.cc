#include "comm/http/http_connection.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace lorikeet::comm {
namespace {

constexpr size_t kReadBytes = 16 << 10;
constexpr size_t kMaxAhead =
    64 << 10;                       // of a client that sends more while it is answered; the rest waits in the network
constexpr size_t kMaxBuffers = 16;  // in one write
constexpr size_t kPieceOverhead = 64;  // what a queued piece costs besides its bytes
constexpr std::chrono::milliseconds kLinger{2000};
constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";

}  // namespace

HttpConnection::HttpConnection(ConnectionHost& host, std::unique_ptr<Transport> transport, std::string peer)
    : host_(host), transport_(std::move(transport)), peer_(std::move(peer)) {}

void HttpConnection::start() {
  enter(State::handshaking, host_.options().head_timeout);
  transport_->handshake([self = shared_from_this()](Transport::Error error) {
    if (self->is_closed()) return;
    if (error) return self->close();
    self->next_request();
    self->read();
  });
}

void HttpConnection::refuse_busy() {
  enter(State::handshaking, host_.options().head_timeout);
  transport_->handshake([self = shared_from_this()](Transport::Error error) {
    if (self->is_closed()) return;
    if (error) return self->close();
    self->refuse(503, "too many connections are open");
  });
}

void HttpConnection::enter(State state, std::chrono::milliseconds deadline) {
  if (state_ == State::resting) host_.rests(*this, false);
  state_ = state;
  deadline_ = Clock::now() + deadline;
  if (state_ == State::resting) host_.rests(*this, true);
}

// ---- reading

void HttpConnection::read() {
  const bool wanted = state_ != State::closed && (state_ == State::lingering || in_.size() < kMaxAhead);
  if (reading_ || !wanted) return;
  reading_ = true;
  received_.resize(kReadBytes);
  transport_->read_some({received_.data(), received_.size()},
                        [self = shared_from_this()](Transport::Error error, size_t bytes) {
                          self->reading_ = false;
                          if (self->is_closed()) return;
                          if (error) return self->close();  // in the middle of an answer, too: nobody reads it
                          if (self->state_ != State::lingering) self->in_.append(self->received_, 0, bytes);
                          self->parse();
                          self->read();
                        });
}

void HttpConnection::parse() {
  if (state_ == State::resting && !in_.empty()) enter(State::head, host_.options().head_timeout);
  while (state_ == State::head || state_ == State::body) {
    const bool had_head = parser_->has_head();
    const auto taken = parser_->put(in_);
    if (!taken) return refuse(taken.error().status, taken.error().message);
    in_.erase(0, *taken);
    if (!reserve_body()) return refuse(503, "too many requests with large bodies are under way");
    if (!had_head && parser_->has_head()) {
      head_came();
      if (state_ != State::head && state_ != State::body) return;
    }
    if (parser_->done()) return request_came();
    if (*taken == 0 || in_.empty()) return;
  }
}

void HttpConnection::head_came() {
  HttpRequest& request = parser_->request();
  request.peer = peer_;
  head_request_ = request.method == "HEAD";
  if (const auto& on_head = host_.callbacks().on_head) {
    if (auto refusal = on_head(request)) {
      // A body that is on its way would have to be read to find the next request.
      const bool keep_alive = parser_->done() && parser_->keep_alive() && !stopping_;
      enter(State::answering, {});
      return send_whole(*std::move(refusal), keep_alive);
    }
  }
  if (parser_->done()) return;
  enter(State::body, host_.options().body_timeout);
  if (parser_->expects_continue()) push(std::string(kContinue));
}

void HttpConnection::request_came() {
  first_ = false;
  keep_alive_ = parser_->keep_alive() && !stopping_;
  enter(State::answering, {});
  exchange_ = host_.begin_exchange(*this);
  host_.callbacks().on_request(exchange_, std::move(parser_->request()));
}

bool HttpConnection::reserve_body() {
  const size_t size = parser_->request().body.size();
  if (size <= body_bytes_) return true;
  if (!host_.take_body_bytes(size - body_bytes_)) return false;
  body_bytes_ = size;
  return true;
}

// ---- answering

void HttpConnection::refuse(int status, const std::string& sentence) {
  HttpAnswer answer{status, {{"Content-Type", "text/plain; charset=utf-8"}}, sentence + "\n"};
  if (host_.callbacks().refusal) answer = host_.callbacks().refusal(status, sentence);
  enter(State::answering, {});
  send_whole(std::move(answer), false);
}

void HttpConnection::answer(HttpAnswer answer) {
  if (state_ == State::answering && !begun_ && !whole_) send_whole(std::move(answer), keep_alive_);
}

void HttpConnection::send_whole(HttpAnswer answer, bool keep_alive) {
  keep_alive_ = keep_alive && !stopping_;
  std::string text = http_head_text(answer, HttpFraming::length, keep_alive_);
  if (!head_request_) text += answer.body;
  whole_ = true;
  push(std::move(text));
}

void HttpConnection::begin(HttpAnswer head) {
  if (state_ != State::answering || begun_ || whole_) return;
  begun_ = true;
  framing_ = parser_->is_http_1_0() ? HttpFraming::until_close : HttpFraming::chunked;
  keep_alive_ = keep_alive_ && framing_ == HttpFraming::chunked && !stopping_;
  std::string text = http_head_text(head, framing_, keep_alive_);
  if (!head_request_ && !head.body.empty()) {
    text += framing_ == HttpFraming::chunked ? http_chunk(head.body) : head.body;
  }
  push(std::move(text));
}

void HttpConnection::write(std::string_view piece) {
  if (state_ != State::answering || !begun_ || whole_ || head_request_ || piece.empty()) return;
  push(framing_ == HttpFraming::chunked ? http_chunk(piece) : std::string(piece));
}

void HttpConnection::end() {
  if (state_ != State::answering || !begun_ || whole_) return;
  whole_ = true;
  push(framing_ == HttpFraming::chunked && !head_request_ ? std::string(kHttpLastChunk) : std::string());
}

// May close.
void HttpConnection::push(std::string bytes) {
  if (out_.empty()) wrote_ = Clock::now();
  out_bytes_ += bytes.size() + kPieceOverhead;
  // A whole answer may be larger than what may wait for a slow reader of a stream: it was bounded when it was made.
  if (!whole_ && out_bytes_ > host_.options().max_pending_bytes) return close();
  out_.push_back(std::move(bytes));
  flush();
}

void HttpConnection::flush() {
  if (writing_ || out_.empty()) return;
  std::vector<boost::asio::const_buffer> buffers;
  for (size_t i = 0; i < std::min(out_.size(), kMaxBuffers); ++i) {
    const size_t skip = i == 0 ? out_sent_ : 0;
    buffers.emplace_back(out_[i].data() + skip, out_[i].size() - skip);
  }
  writing_ = true;
  transport_->write_some(buffers, [self = shared_from_this()](Transport::Error error, size_t bytes) {
    self->writing_ = false;
    if (self->is_closed()) return;
    if (error) return self->close();
    self->wrote_ = Clock::now();
    bytes += std::exchange(self->out_sent_, 0);
    while (!self->out_.empty() && bytes >= self->out_.front().size()) {
      bytes -= self->out_.front().size();
      self->out_bytes_ -= self->out_.front().size() + kPieceOverhead;
      self->out_.pop_front();
    }
    self->out_sent_ = bytes;
    self->out_.empty() ? self->answered() : self->flush();
  });
}

// Everything that was given has left.
void HttpConnection::answered() {
  if (state_ != State::answering || !whole_) return;
  release();
  if (!keep_alive_) return linger();
  next_request();
  parse();
  read();
}

void HttpConnection::next_request() {
  const HttpServerOptions& options = host_.options();
  parser_.emplace(RequestParser::Limits{options.max_head_bytes, options.max_headers, options.max_body_bytes});
  begun_ = whole_ = head_request_ = false;
  enter(State::resting, first_ ? options.head_timeout : options.idle_timeout);
}

// ---- ending

void HttpConnection::linger() {
  in_.clear();
  enter(State::lingering, kLinger);
  transport_->end_writing([self = shared_from_this()](Transport::Error) {});
  read();
}

void HttpConnection::check_deadline(Clock::time_point now) {
  if (state_ == State::closed) return;
  if (!out_.empty() && now - wrote_ >= host_.options().write_timeout) return close();
  if (state_ == State::answering || now < deadline_) return;
  const bool partial = state_ == State::head || state_ == State::body;
  partial ? refuse(408, "the request did not come in time") : close();
}

void HttpConnection::stop() {
  stopping_ = true;
  keep_alive_ = false;
  const bool busy = state_ == State::answering || !out_.empty();
  if (!busy) close();
}

void HttpConnection::close() {
  if (state_ == State::closed) return;
  const auto self = shared_from_this();
  enter(State::closed, {});
  transport_->close();
  if (exchange_ != 0 && !whole_ && host_.callbacks().on_gone) host_.callbacks().on_gone(exchange_);
  release();
  host_.closed(*this);
}

void HttpConnection::release() {
  if (exchange_ != 0) host_.end_exchange(std::exchange(exchange_, 0));
  host_.give_body_bytes(std::exchange(body_bytes_, 0));
}

}  // namespace lorikeet::comm
