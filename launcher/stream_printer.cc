#include "launcher/stream_printer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "kernels/base/console.h"

namespace lorikeet::launcher {
namespace {

constexpr std::array<const char*, 6> kLabelColours = {"32", "33", "34", "35", "36", "31"};

// A token: its log-probability, its id, its text where the piece is of it alone; then the best ones.
std::string logprobs_line(const comm::Delta& delta, size_t token) {
  std::string sampled, best;
  for (const auto& [id, logprob] : delta.logprobs[token]) {
    if (token < delta.token_ids.size() && id == delta.token_ids[token]) sampled = fmt::format("{:.4f} {}", logprob, id);
    best += fmt::format("  {:.4f} {}", logprob, id);
  }
  if (delta.token_ids.size() == 1) sampled += " '" + shortened(delta.text, 16) + "'";
  return "  " + padded(sampled, 36) + "best:" + best;
}

}  // namespace

StreamPrinter::StreamPrinter(std::FILE* out, std::vector<std::string> labels, Style style)
    : out_(out), labels_(std::move(labels)), style_(style), held_(labels_.size()), logprobs_(labels_.size()) {
  for (const std::string& label : labels_) label_width_ = std::max(label_width_, text_width(label));
}

size_t StreamPrinter::line_width() const {
  constexpr size_t kSeparator = 3;
  if (!style_.terminal.present) return kLineWidth;
  const size_t taken = label_width_ + kSeparator;
  return std::max(kLeastLineWidth, style_.terminal.columns > taken ? style_.terminal.columns - taken : 0);
}

Result<void> StreamPrinter::line(size_t answer, const std::string& text) {
  const std::string label =
      coloured(style_.terminal, kLabelColours[answer % kLabelColours.size()], padded(labels_[answer], label_width_));
  return write_text(out_, fmt::format("{} | {}\n", label, text));
}

Result<void> StreamPrinter::text(size_t answer, const std::string& piece) {
  if (labels_.size() == 1) {
    if (!piece.empty()) in_line_ = piece.back() != '\n';
    return write_text(out_, piece);
  }
  std::string& held = held_[answer];
  held += piece;
  const size_t width = line_width();
  while (true) {
    size_t cut = held.find('\n');
    if (cut == std::string::npos || cut > width) {
      cut = held.size() > width ? held.rfind(' ', width) : std::string::npos;
    }
    if (cut == std::string::npos) return {};
    if (auto ok = line(answer, held.substr(0, cut)); !ok) return ok;
    held.erase(0, cut + 1);
  }
}

Result<void> StreamPrinter::delta(size_t answer, const comm::Delta& delta) {
  for (size_t i = 0; i < delta.logprobs.size(); ++i) logprobs_[answer].push_back(logprobs_line(delta, i));
  return text(answer, delta.text);
}

Result<void> StreamPrinter::close(size_t answer) {
  if (labels_.size() == 1) {
    if (in_line_) {
      if (auto ok = write_text(out_, "\n"); !ok) return ok;
    }
    for (const std::string& text : logprobs_[answer]) {
      if (auto ok = write_text(out_, text + "\n"); !ok) return ok;
    }
    return {};
  }
  if (!held_[answer].empty()) {
    if (auto ok = line(answer, held_[answer]); !ok) return ok;
  }
  held_[answer].clear();
  for (const std::string& text : logprobs_[answer]) {
    if (auto ok = line(answer, text); !ok) return ok;
  }
  return {};
}

Result<void> StreamPrinter::end(size_t answer, const std::string& note) {
  if (auto ok = close(answer); !ok || !style_.notes) return ok;
  if (labels_.size() > 1) return line(answer, note);
  say("{}", coloured(style_.terminal, "2", note));
  return {};
}

Result<void> StreamPrinter::fail(size_t answer, const std::string& command, const std::string& why) {
  if (auto ok = close(answer); !ok) return ok;
  remark(answer, command, why);
  return {};
}

void StreamPrinter::remark(size_t answer, const std::string& command, const std::string& what) const {
  say("{}: {}{}", command, labels_.size() > 1 ? labels_[answer] + ": " : "", what);
}

}  // namespace lorikeet::launcher
