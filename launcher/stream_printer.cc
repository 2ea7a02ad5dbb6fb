#include "launcher/stream_printer.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/base/console.h"

namespace lorikeet::launcher {

StreamPrinter::StreamPrinter(std::FILE* out, std::vector<std::string> labels)
    : out_(out), labels_(std::move(labels)), held_(labels_.size()) {
  for (const std::string& label : labels_) label_width_ = std::max(label_width_, label.size());
}

Result<void> StreamPrinter::line(size_t answer, const std::string& text) {
  return write_text(out_, fmt::format("{:<{}} | {}\n", labels_[answer], label_width_, text));
}

Result<void> StreamPrinter::text(size_t answer, const std::string& piece) {
  if (labels_.size() == 1) return write_text(out_, piece);
  std::string& held = held_[answer];
  held += piece;
  while (true) {
    size_t cut = held.find('\n');
    if (cut == std::string::npos || cut > kLineWidth) {
      cut = held.size() > kLineWidth ? held.rfind(' ', kLineWidth) : std::string::npos;
    }
    if (cut == std::string::npos) return {};
    if (auto ok = line(answer, held.substr(0, cut)); !ok) return ok;
    held.erase(0, cut + 1);
  }
}

Result<void> StreamPrinter::end(size_t answer, const std::string& note) {
  if (labels_.size() == 1) {
    const auto ended = write_text(out_, "\n");
    say("{}", note);
    return ended;
  }
  if (!held_[answer].empty()) {
    if (auto ok = line(answer, held_[answer]); !ok) return ok;
  }
  held_[answer].clear();
  return line(answer, note);
}

}  // namespace lorikeet::launcher
