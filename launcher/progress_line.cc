#include "launcher/progress_line.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "kernels/base/console.h"
#include "launcher/units.h"

namespace lorikeet::launcher {
namespace {

constexpr std::chrono::milliseconds kTerminalInterval{100};
constexpr std::chrono::seconds kPlainInterval{10};
constexpr size_t kMostBarColumns = 24;
constexpr size_t kLeastBarColumns = 8;  // where there is less room, the numbers stand alone

std::string bar_of(double share, size_t columns) {
  const auto full = static_cast<size_t>(share * static_cast<double>(columns));
  return fmt::format("[{:#<{}}{:.<{}}] ", "", full, "", columns - full);
}

}  // namespace

std::string progress_text(const Progress& progress, double seconds_left, size_t columns) {
  const double share =
      progress.total > 0
          ? std::clamp(static_cast<double>(progress.done) / static_cast<double>(progress.total), 0.0, 1.0)
          : 0;
  std::string numbers = progress.total > 0
                            ? fmt::format("{:.0f} %, {} of {} {}", 100 * share, count_text(progress.done),
                                          count_text(progress.total), progress.unit)
                            : fmt::format("{} {}", count_text(progress.done), progress.unit);
  if (!progress.more.empty()) numbers += ", " + progress.more;
  if (seconds_left >= 0) numbers += fmt::format(", {} left", duration_text(std::max(seconds_left, 1.0)));
  std::string text = progress.what + "  ";
  // The bar takes what the numbers leave.
  constexpr size_t kBrackets = 3;
  const size_t taken = text_width(text) + text_width(numbers) + kBrackets;
  if (progress.total > 0 && columns >= taken + kLeastBarColumns) {
    text += bar_of(share, std::min(columns - taken, kMostBarColumns));
  }
  return shortened(text + numbers, columns);
}

ProgressLine::ProgressLine(int descriptor, std::function<Clock::time_point()> now)
    : descriptor_(descriptor), terminal_(terminal_of(descriptor)), now_(std::move(now)) {}

ProgressLine::~ProgressLine() {
  end();
}

void ProgressLine::show(const Progress& progress) {
  const std::lock_guard lock(mutex_);
  const Clock::time_point now = now_();
  if (!shown_) {
    shown_ = Shown{now, now, progress.done, ""};
  } else if (now - shown_->last < (terminal_.present ? Clock::duration(kTerminalInterval) : kPlainInterval)) {
    return;
  }
  const double elapsed = std::chrono::duration<double>(now - shown_->begin).count();
  const int64_t done = progress.done - shown_->begun_at;
  const double left = progress.total > 0 && done > 0 && elapsed > 0
                          ? elapsed * static_cast<double>(progress.total - progress.done) / static_cast<double>(done)
                          : -1;
  if (!terminal_.present) {
    if (elapsed > 0) say_line(descriptor_, progress_text(progress, left, 200));
    shown_->last = now;
    return;
  }
  std::string text = progress_text(progress, left, terminal_.columns - 1);
  shown_->last = now;
  if (text == shown_->text) return;
  say_text(descriptor_, "\r" + text + "\x1b[K");
  shown_->text = std::move(text);
}

void ProgressLine::end() {
  const std::lock_guard lock(mutex_);
  erase();
  shown_.reset();
}

void ProgressLine::say(const std::string& line) {
  const std::lock_guard lock(mutex_);
  erase();
  say_line(descriptor_, line);
}

void ProgressLine::erase() {
  if (!shown_ || shown_->text.empty()) return;
  say_text(descriptor_, "\r\x1b[K");
  shown_->text.clear();
}

}  // namespace lorikeet::launcher
