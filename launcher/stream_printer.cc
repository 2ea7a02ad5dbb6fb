#include "launcher/stream_printer.h"

#include <fmt/format.h>

#include <algorithm>

namespace lorikeet::launcher {

StreamPrinter::StreamPrinter(std::FILE* out, std::vector<std::string> labels)
    : out_(out), labels_(std::move(labels)), held_(labels_.size()) {
  for (const std::string& label : labels_) label_width_ = std::max(label_width_, label.size());
}

void StreamPrinter::line(size_t answer, const std::string& text) {
  fmt::print(out_, "{:<{}} | {}\n", labels_[answer], label_width_, text);
  std::fflush(out_);
}

void StreamPrinter::text(size_t answer, const std::string& piece) {
  if (labels_.size() == 1) {
    fmt::print(out_, "{}", piece);
    std::fflush(out_);
    return;
  }
  std::string& held = held_[answer];
  held += piece;
  while (true) {
    size_t cut = held.find('\n');
    if (cut == std::string::npos || cut > kLineWidth) {
      cut = held.size() > kLineWidth ? held.rfind(' ', kLineWidth) : std::string::npos;
    }
    if (cut == std::string::npos) return;
    line(answer, held.substr(0, cut));
    held.erase(0, cut + 1);
  }
}

void StreamPrinter::end(size_t answer, const std::string& note) {
  if (labels_.size() == 1) {
    fmt::print(out_, "\n");
    fmt::print(stderr, "{}\n", note);
    return;
  }
  if (!held_[answer].empty()) line(answer, held_[answer]);
  held_[answer].clear();
  line(answer, note);
}

}  // namespace lorikeet::launcher
