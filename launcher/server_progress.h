// Shows people the start of a server: loading as one bar over all ranks, and its messages.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "actors/supervisor/server.h"
#include "launcher/progress_line.h"

namespace lorikeet::launcher {

// The loaded layers of all ranks together. When one rank starts again, all do.
class LayerCount {
 public:
  explicit LayerCount(int32_t ranks) : done_(static_cast<size_t>(ranks), 0) {}

  Progress add(int32_t rank, int32_t done, int32_t total);
  bool complete() const { return complete_; }

 private:
  std::vector<int32_t> done_;
  bool complete_ = false;
};

// Shows on standard error. Threads: any.
class ServerProgress {
 public:
  // command: what failures stand behind, such as "lorikeet serve".
  ServerProgress(std::string command, int32_t ranks);

  // on_progress, on_failure and on_loading of callbacks that call it as long as they live.
  static actors::ServerCallbacks callbacks(const std::shared_ptr<ServerProgress>& progress);

  ProgressLine& line() { return line_; }

 private:
  void loading(int32_t rank, int32_t done, int32_t total);

  const std::string command_;
  const int32_t ranks_;
  std::mutex mutex_;
  LayerCount layers_;
  std::optional<ProgressLine::Clock::time_point> begin_;  // of the present loading
  ProgressLine line_;
};

}  // namespace lorikeet::launcher
