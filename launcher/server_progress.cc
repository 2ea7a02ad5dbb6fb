#include "launcher/server_progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "launcher/units.h"

namespace lorikeet::launcher {

Progress LayerCount::add(int32_t rank, int32_t done, int32_t total) {
  const auto index = static_cast<size_t>(rank);
  if (index < done_.size()) {
    if (done <= done_[index]) std::fill(done_.begin(), done_.end(), 0);
    done_[index] = done;
  }
  const int64_t all = static_cast<int64_t>(total) * static_cast<int64_t>(done_.size());
  const int64_t sum = std::accumulate(done_.begin(), done_.end(), int64_t{0});
  complete_ = sum == all;
  return {"loading", sum, all, "layers", ""};
}

ServerProgress::ServerProgress(std::string command, int32_t ranks)
    : command_(std::move(command)),
      ranks_(ranks),
      layers_(ranks),
      begin_(ProgressLine::Clock::now()),
      line_(STDERR_FILENO) {}

actors::ServerCallbacks ServerProgress::callbacks(const std::shared_ptr<ServerProgress>& progress) {
  actors::ServerCallbacks callbacks;
  callbacks.on_progress = [progress](const std::string& line) { progress->line_.say(line); };
  callbacks.on_failure = [progress](const std::string& why) {
    progress->line_.end();
    progress->line_.say(fmt::format("{}: {}", progress->command_, why));
  };
  callbacks.on_loading = [progress](int32_t rank, int32_t done, int32_t total) {
    progress->loading(rank, done, total);
  };
  return callbacks;
}

void ServerProgress::loading(int32_t rank, int32_t done, int32_t total) {
  const std::lock_guard lock(mutex_);
  const auto now = ProgressLine::Clock::now();
  if (!begin_) begin_ = now;
  const Progress progress = layers_.add(rank, done, total);
  if (!layers_.complete()) return line_.show(progress);
  line_.end();
  line_.say(fmt::format("loaded {} layers on {} in {}", total, ranks_ == 1 ? "1 rank" : fmt::format("{} ranks", ranks_),
                        duration_text(std::chrono::duration<double>(now - *begin_).count())));
  begin_.reset();
}

}  // namespace lorikeet::launcher
