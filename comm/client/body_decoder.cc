#include "comm/client/body_decoder.h"

#include <sys/resource.h>
#include <unistd.h>

#include <utility>

namespace lorikeet::comm {
namespace {

constexpr int kNice = 10;

}  // namespace

tl::expected<Decoded<ClientFrame>, Malformed> decode(const ClientFrames& frames, size_t max_body_bytes) {
  std::vector<std::string_view> parts;
  for (const zmq::message_t& frame : frames) parts.push_back(frame.to_string_view());
  return decode_client_frames(parts, max_body_bytes);
}

size_t bytes_of(const ClientFrames& frames) {
  size_t bytes = 0;
  for (const zmq::message_t& frame : frames) bytes += frame.size();
  return bytes;
}

BodyDecoder::BodyDecoder(size_t max_body_bytes, std::function<void()> wake)
    : max_body_bytes_(max_body_bytes), wake_(std::move(wake)), thread_([this] { run(); }) {}

BodyDecoder::~BodyDecoder() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void BodyDecoder::add(ClientId client, ClientFrames frames) {
  waiting_bytes_ += bytes_of(frames);
  {
    const std::lock_guard lock(mutex_);
    std::deque<ClientFrames>& of_client = waiting_[client];
    if (of_client.empty()) turns_.push_back(client);
    of_client.push_back(std::move(frames));
  }
  changed_.notify_one();
}

void BodyDecoder::forget(ClientId client) {
  std::deque<ClientFrames> dropped;
  {
    const std::lock_guard lock(mutex_);
    if (working_for_ == client) working_for_ = 0;
    const auto of_client = waiting_.extract(client);
    if (of_client.empty()) return;
    dropped = std::move(of_client.mapped());
    std::erase(turns_, client);
  }
  for (const ClientFrames& frames : dropped) waiting_bytes_ -= bytes_of(frames);
}

std::vector<BodyDecoder::Item> BodyDecoder::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(decoded_, {});
}

void BodyDecoder::discard(Item item) {
  {
    const std::lock_guard lock(mutex_);
    discarded_.push_back(std::move(item));
  }
  changed_.notify_one();
}

void BodyDecoder::run() {
  // Where cores are few, whoever streams goes first.
  setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kNice);
  for (;;) {
    ClientId client = 0;
    ClientFrames frames;
    std::vector<Item> discarded;  // freed without the lock
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || !turns_.empty() || !discarded_.empty(); });
      if (stopping_) return;
      discarded.swap(discarded_);
      if (turns_.empty()) continue;
      working_for_ = client = turns_.front();
      turns_.pop_front();
      const auto of_client = waiting_.find(client);
      frames = std::move(of_client->second.front());
      of_client->second.pop_front();
      if (of_client->second.empty()) {
        waiting_.erase(of_client);
      } else {
        turns_.push_back(client);
      }
    }
    auto message = decode(frames, max_body_bytes_);
    waiting_bytes_ -= bytes_of(frames);
    frames.clear();
    {
      const std::lock_guard lock(mutex_);
      if (working_for_ == client) decoded_.push_back({client, std::move(message)});
    }
    wake_();
  }
}

}  // namespace lorikeet::comm
