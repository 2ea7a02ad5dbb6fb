// A running HttpServer whose requests a test takes one by one.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "comm/http/http_server.h"
#include "tests/comm/http/raw_client.h"

namespace lorikeet::tests {

class HttpFixture : public ::testing::Test {
 protected:
  static constexpr std::chrono::seconds kPatience{30};
  struct Came {
    comm::ExchangeId id = 0;
    comm::HttpRequest request;
  };

  HttpFixture() {
    options_.port = 0;
    options_.max_head_bytes = 32 << 10;
    options_.max_headers = 100;
    options_.max_body_bytes = 16 << 20;
    options_.max_all_body_bytes = 256 << 20;
    options_.max_pending_bytes = 8 << 20;
    options_.max_connections = 4096;
    options_.head_timeout = options_.body_timeout = options_.idle_timeout = options_.write_timeout = 2 * kPatience;
  }

  void serve() {
    comm::HttpCallbacks callbacks;
    callbacks.on_head = on_head_;
    callbacks.on_request = [this](comm::ExchangeId id, comm::HttpRequest request) {
      const std::lock_guard lock(mutex_);
      came_.push_back({id, std::move(request)});
      changed_.notify_all();
    };
    callbacks.on_gone = [this](comm::ExchangeId id) {
      const std::lock_guard lock(mutex_);
      gone_.push_back(id);
      changed_.notify_all();
    };
    auto server = comm::HttpServer::start(options_, std::move(callbacks));
    ASSERT_TRUE(server) << server.error().message;
    server_ = *std::move(server);
  }

  Came next_request() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, kPatience, [this] { return !came_.empty(); })) {
      ADD_FAILURE() << "no request came";
      return {};
    }
    Came came = std::move(came_.front());
    came_.pop_front();
    return came;
  }

  comm::ExchangeId next_gone() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, kPatience, [this] { return !gone_.empty(); })) return 0;
    const comm::ExchangeId id = gone_.front();
    gone_.pop_front();
    return id;
  }

  bool none_came() {
    const std::lock_guard lock(mutex_);
    return came_.empty();
  }

  comm::HttpServerOptions options_;
  std::function<std::optional<comm::HttpAnswer>(const comm::HttpRequest&)> on_head_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Came> came_;
  std::deque<comm::ExchangeId> gone_;
  std::unique_ptr<comm::HttpServer> server_;  // last: its thread uses the others
};

}  // namespace lorikeet::tests
